"""One network, many tasks: each task has its own copy of some parameters, and all share the rest."""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call

from fewshot_nsl.inner_loop.parameters import Parameters
from fewshot_nsl.precision import Precision


@runtime_checkable
class TaskNetwork(Protocol):
    """A network from images to features, run for many tasks."""

    def prepare(self, images: Shaped[Tensor, "tasks n c h w"]) -> Tensor:
        """Lay the images out as `features` takes them: done once, however many steps are taken on them."""
        ...

    def features(self, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n d"]:
        """Features of each task's images under the task's own parameters, named as the network names them."""
        ...


class LoopedNetwork:
    """Task after task: any network.

    Args:
        network: from images `[n, c, h, w]` to features `[n, d]`. Its own parameters serve where a task brings none.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def prepare(self, images: Shaped[Tensor, "tasks n c h w"]) -> Shaped[Tensor, "tasks n c h w"]:
        """The images as they are."""
        return images

    def features(self, parameters: Parameters, prepared: Shaped[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n d"]:
        """See `TaskNetwork`."""
        own = ({name: value[t] for name, value in parameters.items()} for t in range(len(prepared)))
        return torch.stack([functional_call(self.network, values, (images,)) for values, images in zip(own, prepared, strict=True)])


class PreciseNetwork:
    """Another `TaskNetwork` in a precision; its features are in float32 again, and so is everything done with them.

    Args:
        network: what is run.
        precision: of its forward pass; derivatives follow.
    """

    def __init__(self, network: TaskNetwork, precision: Precision) -> None:
        self.network, self.precision = network, precision

    def prepare(self, images: Shaped[Tensor, "tasks n c h w"]) -> Tensor:
        """See `TaskNetwork`."""
        return self.network.prepare(images)

    def features(self, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n d"]:
        """See `TaskNetwork`."""
        with self.precision.network():
            features = self.network.features(parameters, prepared)
        return features.float()


class FrozenNetwork:
    """Another `TaskNetwork` of which nothing moves: images are encoded by `prepare`, and so once, however many steps are taken.

    Args:
        network: what is run; tasks bring no parameters of theirs.
    """

    def __init__(self, network: TaskNetwork) -> None:
        self.network = network

    @torch.no_grad()
    def prepare(self, images: Shaped[Tensor, "tasks n c h w"]) -> Float[Tensor, "tasks n d"]:
        """Features of the images."""
        return self.network.features({}, self.network.prepare(images))

    def features(self, parameters: Parameters, prepared: Float[Tensor, "tasks n d"]) -> Float[Tensor, "tasks n d"]:
        """What was prepared; there are no parameters that could change it."""
        assert not parameters, parameters.keys()
        return prepared
