"""Which kernels are used."""

from collections.abc import Callable

import torch

from fewshot_nsl.errors import ConfigurationError, KernelError
from fewshot_nsl.kernels.build import build_native
from fewshot_nsl.kernels.native import NativeKernels

CHOICES = ("auto", "fast", "plain")


def choose_native(
    name: str = "auto", device: torch.device | None = None, *, half: bool = False, announce: Callable[[str], None] | None = None
) -> NativeKernels | None:
    """Kernels compiled for this processor, at their first use; None where torch's own operators are to serve.

    Args:
        name: "fast": compiled; "plain": torch's own; "auto": compiled where there is a compiler, torch's own where there is none, on a
            GPU, and in half precision.
        device: where they will run; by default the CPU.
        half: whether networks will run in half precision, which the kernels do not compute in.
        announce: called with a line where something is compiled, or cannot be.

    Raises:
        ConfigurationError: another name, or "fast" on a GPU or in half precision.
        KernelError: "fast" where nothing can be compiled.
    """
    if name not in CHOICES:
        raise ConfigurationError(f"engine '{name}' is unknown here: expected one of {', '.join(CHOICES)}")
    on_cpu = device is None or device.type == "cpu"
    if name == "fast" and not on_cpu:
        raise ConfigurationError("engine fast has kernels for processors: use --engine auto or plain on a GPU")
    if name == "fast" and half:
        raise ConfigurationError("engine fast computes in float32: use --engine auto with --precision bfloat16, or --precision float32")
    if name == "plain" or half or not on_cpu:
        return None
    try:
        return NativeKernels(build_native(announce))
    except KernelError as problem:
        if name == "fast":
            raise
        if announce:
            announce(f"Using torch's own operators, --engine plain: {problem}")
        return None
