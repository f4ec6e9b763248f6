"""Engines of the inner loop, and which one is used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import fast_engine, higher_engine
from fewshot_nsl.inner_loop.grouped import GroupedNetwork, can_be_grouped
from fewshot_nsl.inner_loop.parameters import Adapt, Parameters, Rates, TaskLoss
from fewshot_nsl.inner_loop.task_network import LoopedNetwork, PreciseNetwork, TaskNetwork
from fewshot_nsl.kernels import Kernels, PlainKernels, choose_native
from fewshot_nsl.precision import Precision

ENGINES = ("auto", "higher", "fast", "plain")


@dataclass(frozen=True)
class Engine:
    """How the steps are taken, and how a network is run for many tasks. Any two give the same loss and gradients, to rounding."""

    name: str
    adapt: Adapt
    network: Callable[[nn.Module], TaskNetwork]
    """Makes a network ready for many tasks."""
    kernels: Kernels | None = None
    """What the network's stages run on, if on kernels of our own; training without an inner loop runs on them too."""

    def in_precision(self, precision: Precision) -> "Engine":
        """The same steps, with networks that compute in this precision.

        Raises:
            ConfigurationError: half precision, and another engine than "higher": what the fast ones fuse is in float32.
        """
        if not precision.half:
            return self
        if self.name != "higher":
            raise ConfigurationError(
                f"engine {self.name} computes in float32, not in {precision.name}: use --engine auto or higher, or --precision float32"
            )
        return replace(self, network=lambda network: PreciseNetwork(self.network(network), precision))

    def meta_gradient(
        self, inner_loss: TaskLoss, outer_loss: TaskLoss, initial: Parameters, *, steps: int, lr: Rates, first_order: bool = False
    ) -> tuple[Float[Tensor, " tasks"], Parameters]:
        """Outer loss of each task after adapting to its inner loss, and the gradient of that with respect to the task's copy of `initial`.

        The mean of the gradients over tasks is MAML's meta-gradient (Finn et al. 2017, algorithm 2, line 10).
        """
        start = {name: value.detach().requires_grad_() for name, value in initial.items()}
        loss = outer_loss(self.adapt(inner_loss, start, steps=steps, lr=lr, first_order=first_order))
        gradients = torch.autograd.grad(loss.sum(), list(start.values()), materialize_grads=True)
        return loss.detach(), dict(zip(start, gradients, strict=True))


def higher() -> Engine:
    """The reference: `higher`, one task after the other."""
    return Engine("higher", higher_engine.adapt, LoopedNetwork)


def fast(kernels: Kernels | None = None) -> Engine:
    """All tasks in one pass where the network allows it, on these kernels; by default torch's operators."""
    return Engine("fast" if kernels else "plain", fast_engine.adapt, partial(_network, kernels=kernels or PlainKernels()), kernels)


def choose_engine(
    name: str = "auto", device: torch.device | None = None, *, half: bool = False, announce: Callable[[str], None] | None = None
) -> Engine:
    """The engine of this name.

    "higher" is the reference. "fast" was the faster at every size measured; its kernels are compiled for this processor at their first use.
    "plain" is the fast engine on torch's own operators, which compiles nothing. "auto" is "fast" where there is a compiler, and "plain"
    where there is none, and on a GPU; in half precision, which the fast ones do not compute in, it is "higher".

    Args:
        name: one of `ENGINES`.
        device: where it will run; by default the CPU.
        half: whether it will run in half precision (`Engine.in_precision`).
        announce: called with a line where something is compiled, or cannot be.

    Raises:
        ConfigurationError: another name.
        ConfigurationError: "fast" on a GPU or in half precision.
        KernelError: "fast" where nothing can be compiled.
    """
    if name not in ENGINES:
        raise ConfigurationError(f"engine '{name}' is unknown: expected one of {', '.join(ENGINES)}")
    if name == "higher" or (name == "auto" and half):
        return higher()
    return fast(choose_native(name, device, half=half, announce=announce))


def _network(network: nn.Module, *, kernels: Kernels) -> TaskNetwork:
    return GroupedNetwork(network, kernels) if can_be_grouped(network) else LoopedNetwork(network)
