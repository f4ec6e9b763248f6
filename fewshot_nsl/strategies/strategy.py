"""What learners are. Any object of these forms is evaluated, ours or a user's own."""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.precision import Precision

Classifier = Callable[[Tensor], Tensor]
"""Query images (or features) of all tasks `[tasks, n_query, ...]` -> logits `[tasks, n_query, way]`."""


@runtime_checkable
class Learner(Protocol):
    """The least that can be evaluated: it learns a whole batch of tasks."""

    def fit(self, support: Shaped[Tensor, "tasks n_support ..."], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Learn each task from its support set: uint8 images `[tasks, n_support, c, h, w]`, labels 0 ... way-1."""
        ...


@runtime_checkable
class FeatureLearner(Learner, Protocol):
    """A learner that needs only features: `fit` and the classifier take `[tasks, n, d]`, and an image is encoded once, not per episode."""

    def encode(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of images, 0-255."""
        ...


@runtime_checkable
class LearnsBase(Learner, Protocol):
    """A learner that wants to see the base images once, before it meets an episode."""

    def learn_base(self, images: Iterable[UInt8[Tensor, "_ c h w"]]) -> None:
        """Learn from the images of the base classes, 0-255, which come in batches."""
        ...


@runtime_checkable
class LearnsClassifier(Learner, Protocol):
    """A learner that wants the base classes' own classifier once, before it meets an episode."""

    def learn_classifier(self, weight: Float[Tensor, "classes d"], bias: Float[Tensor, " classes"]) -> None:
        """Learn from the linear classifier that was pretrained with the backbone, on its features as they are."""
        ...


@runtime_checkable
class Adapting(Learner, Protocol):
    """A learner that takes gradient steps on a task."""

    engine: Engine
    """Takes the steps; another one gives the same answer, to rounding."""


@runtime_checkable
class CoTrains(Protocol):
    """What learns not from episodes alone: some steps of its training teach it all base classes at once."""

    base_batch: int
    """Images of such a step."""

    @property
    def base_classes(self) -> int:
        """Of its classifier."""
        ...

    def base_share(self, step: int, steps: int) -> float:
        """How probable it is that step `step` of `steps` is such a one."""
        ...

    def base_logits(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """In training, of images 0-255."""
        ...


@runtime_checkable
class Precise(Protocol):
    """A learner that runs its network in a precision by itself."""

    precision: Precision
    """Of the network; what leaves it is in float32."""


@runtime_checkable
class Strategy(Learner, Protocol):
    """A learner that stands in the table."""

    transductive: bool
    """Whether a query's logits depend on the other queries of its episode."""
