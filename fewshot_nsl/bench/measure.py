"""What every benchmark shares: paired timing, peak memory, ceilings of the machine, and the form of a figure."""

import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fewshot_nsl.devices import describe_hardware

Work = Callable[[], object]


def medians(works: Mapping[str, Work], device: torch.device, rounds: int, *, warm_up: int = 2) -> dict[str, float]:
    """Milliseconds of each, the median of `rounds`, in which they take turns: what disturbs the machine disturbs all of them.

    Rounds to warm up go before.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(-warm_up, rounds):
        for name, work in works.items():
            spent = milliseconds(work, device)
            if round_ >= 0:
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def milliseconds(work: Work, device: torch.device) -> float:
    """Of one run, to the end of what it asks of the device."""
    _synchronize(device)
    start = time.perf_counter()
    work()
    _synchronize(device)
    return 1000 * (time.perf_counter() - start)


def peak_megabytes(work: Work, device: torch.device) -> float:
    """What `work` holds at its height, above what is held now.

    On a CPU, and Linux: of the process. What an allocator kept of earlier work hides as much of this, so measure in a fresh process.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    _forget_peak()
    resident = _resident("VmRSS")
    work()
    return _resident("VmHWM") - resident


def ceilings(device: torch.device) -> tuple[float, float]:
    """Floating-point operations and bytes a second that this machine reaches: a large float32 product, and a large copy."""
    side = 2048
    a, b, product = (torch.randn(side, side, device=device) for _ in range(3))
    source, target = (torch.randn(2**25, device=device) for _ in range(2))
    products = [milliseconds(lambda: torch.mm(a, b, out=product), device) for _ in range(20)]
    copies = [milliseconds(lambda: target.copy_(source), device) for _ in range(20)]
    return 2 * side**3 / min(products) * 1e3, 2 * source.nbytes / min(copies) * 1e3


def figure(name: str, ours: float, peer: float, unit: str, device: torch.device) -> str:
    """One figure as one line of JSON; `ratio` is ours over the peer's."""
    values = {"name": name, "ours": round(ours, 3), "peer": round(peer, 3), "ratio": round(ours / peer, 3), "unit": unit}
    return json.dumps(values | {"hardware": describe_hardware(device), "torch": torch.__version__})


def report(name: str, ours: float, peer: float, unit: str, device: torch.device) -> None:
    """Print one figure."""
    print(figure(name, ours, peer, unit, device), flush=True)


def _forget_peak() -> None:
    """Give back what was freed, and let the height that the system remembers begin here."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _resident(which: str) -> float:
    """Megabytes of this process: now, `VmRSS`, or at their height, `VmHWM`."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 2**10


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
