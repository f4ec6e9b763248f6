"""Neural similarity against the plain convolution and against the authors' formulations: time and peak memory.

    python evaluate/benchmarks/similarity.py [--device cpu|cuda] [--rounds 15] [--sizes 100x32x42 ...]

Forward and backward with gradients in input, weight and M, float32, channels last, 3x3 kernels. Ends with one line of JSON a figure.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.bench import Work, ceilings, medians, peak_megabytes, report
from fewshot_nsl.devices import keep_freed_memory, resolve_device
from fewshot_nsl.similarity import ShiftSimilarityConv2d, StaticSimilarityConv2d, convert, fold, similarity_conv2d

SIZES = ("100x32x42", "100x64x42", "32x128x21")
"""Images x channels, in and out x height and width."""


def authors_diagonal(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
    """Every tap a kernel of its own, nine times the output channels; then the sum over taps under the mask M `[n, 9, h, w]`."""
    o, c = weight.shape[:2]
    taps = torch.eye(9, device=x.device).view(9, 1, 1, 3, 3)
    separate = functional.conv2d(x, (weight * taps).reshape(9 * o, c, 3, 3), padding=1)
    return (separate.unflatten(1, (9, o)) * similarity[:, :, None]).sum(1)


def authors_unconstrained(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
    """A 1x1 convolution to nine times the output channels; then nine shifted sums under the masks M `[n, 9, 9, h, w]`."""
    o, c = weight.shape[:2]
    height, width = x.shape[2:]
    responses = functional.conv2d(x, weight.flatten(2).permute(2, 0, 1).reshape(9 * o, c, 1, 1)).unflatten(1, (9, o))
    padded = functional.pad(responses, (1, 1, 1, 1))
    shifted = (padded[..., j // 3 : j // 3 + height, j % 3 : j % 3 + width] for j in range(9))
    return sum((view * similarity[:, :, j, None]).sum(1) for j, view in enumerate(shifted))


def ours(x: Tensor, weight: Tensor, similarity: Tensor) -> Tensor:
    """The functional form."""
    return similarity_conv2d(x, weight, similarity, padding=1)


def numbers(size: str) -> tuple[int, int, int]:
    """Of "100x32x42"."""
    n, c, h = map(int, size.split("x"))
    return n, c, h


def tensors(size: str, device: torch.device, layout: torch.memory_format = torch.channels_last) -> dict[str, Tensor]:
    """What the works of this size share; channels last as a network on its way would have them."""
    n, c, h = numbers(size)
    shapes = {"x": (n, c, h, h), "weight": (c, c, 3, 3), "diagonal": (n, 9, h, h), "full": (n, 81, h, h), "gradient": (n, c, h, h)}
    torch.manual_seed(0)
    made = {name: torch.empty(shape, device=device, memory_format=layout).normal_() for name, shape in shapes.items()}
    made["full"] = made["full"].unflatten(1, (9, 9))
    return {name: value.requires_grad_(name != "gradient") for name, value in made.items()}


def backward(function: Callable[..., Tensor], gradient: Tensor, *inputs: Tensor) -> object:
    """One forward and backward pass."""
    return torch.autograd.grad(function(*inputs), inputs, gradient)


def our_works(size: str, device: torch.device) -> dict[str, Work]:
    """The plain convolution and ours, by name."""
    t = tensors(size, device)
    x, weight, gradient = t["x"], t["weight"], t["gradient"]
    static = StaticSimilarityConv2d(*weight.shape[:2], 3, padding=1, bias=False, device=device)
    return {
        "plain": partial(backward, lambda x, w: functional.conv2d(x, w, padding=1), gradient, x, weight),
        "static": lambda: torch.autograd.grad(static(x), (x, static.weight, static.M), gradient),
        "dynamic diagonal": partial(backward, ours, gradient, x, weight, t["diagonal"]),
        "dynamic unconstrained": partial(backward, ours, gradient, x, weight, t["full"]),
    }


def authors_works(size: str, device: torch.device, layout: torch.memory_format) -> dict[str, Work]:
    """The authors' formulations, by name."""
    t = tensors(size, device, layout)
    return {
        "authors diagonal": partial(backward, authors_diagonal, t["gradient"], t["x"], t["weight"], t["diagonal"]),
        "authors unconstrained": partial(backward, authors_unconstrained, t["gradient"], t["x"], t["weight"], t["full"]),
    }


def floor(size: str, kind: str, operations: float, traffic: float) -> float:
    """Milliseconds: three products of a plain convolution (and those with M), or each tensor once in and out, whichever is longer."""
    n, c, h = numbers(size)
    places, taps = n * h * h, 81 if kind == "unconstrained" else 9
    products = 3 * 2 * places * 9 * c * c + (3 * 2 * places * 81 * c if kind == "unconstrained" else 0)
    moved = 4 * places * (2 * c + taps) + 4 * places * (3 * c + 2 * taps)  # forward: x, M, y; backward: x, M, dy, dx, dM
    return 1e3 * max(products / operations, moved / traffic)


def compare_layers(size: str, device: torch.device, rounds: int) -> None:
    """The figures of one size."""
    operations, traffic = ceilings(device)
    times = medians(our_works(size, device), device, rounds)
    layouts = (torch.channels_last, torch.contiguous_format)
    in_each = [medians(authors_works(size, device, layout), device, max(3, rounds // 5)) for layout in layouts]
    authors = {name: min(times[name] for times in in_each) for name in in_each[0]}  # in the layout that suits each best
    report(f"static, unfolded, {size}: time over plain", times["static"], times["plain"], "ms", device)
    for kind in ("diagonal", "unconstrained"):
        name = f"dynamic {kind}, {size}"
        time = times[f"dynamic {kind}"]
        report(f"{name}: time over plain", time, times["plain"], "ms", device)
        report(f"{name}: time over authors'", time, authors[f"authors {kind}"], "ms", device)
        report(f"{name}: time over floor", time, floor(size, kind, operations, traffic), "ms", device)
        peaks = [_peak_in_a_fresh_process(form, size, device) for form in (f"dynamic {kind}", f"authors {kind}")]
        report(f"{name}: peak memory over authors'", *peaks, "MB", device)


def compare_deployed(size: str, device: torch.device, rounds: int) -> None:
    """A folded network against the plain one, and a folded sparsity-one layer against the plain layer; inference."""
    n, c, h = numbers(size)
    x = torch.randn(n, c, h, h, device=device).contiguous(memory_format=torch.channels_last)
    plain = nn.Sequential(*(nn.Conv2d(c, c, 3, padding=1, device=device) for _ in range(4)))
    folded = fold(convert(plain, "static"))
    layer, shift = plain[0], ShiftSimilarityConv2d(c, c, 3, padding=1, device=device).fold()
    with torch.inference_mode():
        times = medians(
            {"plain": lambda: plain(x), "folded": lambda: folded(x), "layer": lambda: layer(x), "shift": lambda: shift(x)}, device, rounds
        )
    report(f"static, folded, four layers of {size}: time over plain", times["folded"], times["plain"], "ms", device)
    report(f"sparsity one, folded, {size}: time over plain", times["shift"], times["layer"], "ms", device)
    weights = [sum(value.numel() for value in module.parameters()) for module in (shift, layer)]
    report(f"sparsity one, folded, {size}: weights over plain", *weights, "numbers", device)
    report(f"sparsity one, folded, {size}: products over plain", n * h * h * c * c, 9 * n * h * h * c * c, "products", device)


def _peak_in_a_fresh_process(form: str, size: str, device: torch.device) -> float:
    command = [sys.executable, __file__, "--device", device.type, "--peak", form, size]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run the comparison, or one peak of memory for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="images x channels x height and width")
    parser.add_argument("--peak", nargs=2, metavar=("FORM", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if arguments.peak:
        form, size = arguments.peak
        works = partial(authors_works, layout=torch.contiguous_format) if "authors" in form else our_works
        works("2x8x8", device)[form]()  # what torch sets up at the first call is no part of the work
        print(peak_megabytes(works(size, device)[form], device))
        return
    keep_freed_memory()
    for size in arguments.sizes:
        compare_layers(size, device, arguments.rounds)
        compare_deployed(size, device, arguments.rounds)


if __name__ == "__main__":
    main()
