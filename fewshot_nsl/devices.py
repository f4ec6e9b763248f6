"""Which device work runs on, and how it is described beside a result."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import torch

from fewshot_nsl.errors import ConfigurationError, DeviceError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""

DEVICES = ("auto", "cpu", "cuda")


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; `auto` is the GPU where there is one.

    Raises:
        ConfigurationError: another name.
        DeviceError: `cuda` on a machine, or with a build of torch, that has none.
    """
    if name not in DEVICES:
        raise ConfigurationError(f"device '{name}' is unknown: expected one of {', '.join(DEVICES)}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError(f"device cuda: torch {torch.__version__} sees no GPU here; use --device cpu, or install a CUDA build of torch")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next step, where it gives large ones back to the system by default.

    A training step frees and asks for the same hundreds of megabytes again, and the system hands out every page anew: on virtual machines
    that can cost more than the arithmetic. For the process as a whole, hence called by commands, not on import. Elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)  # never


def describe_hardware(device: torch.device) -> str:
    """One line for a result: the GPU's name, or the processor's with the threads torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor_name()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def processor_name() -> str:
    """As the system calls it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
