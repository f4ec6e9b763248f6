"""What every strategy is that is trained on episodes."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies.strategy import Classifier


class EpisodeLearner(nn.Module, ABC):
    """A `Strategy` with weights of its own and a loss for them. Those that ask for a gradient are what training moves."""

    name: str
    """In `META_STRATEGIES`."""
    transductive: bool
    """As in `Strategy`."""

    @abstractmethod
    def fit(self, support: Shaped[Tensor, "tasks n_support ..."], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """As in `Learner`."""
        ...

    @abstractmethod
    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Of each task, on its queries."""
        ...
