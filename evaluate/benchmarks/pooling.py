"""CNN-4 with fixed statistics: pooling before BN and ReLU, against after them.

    python evaluate/benchmarks/pooling.py [--device auto|cpu|cuda] [--rounds 15] [--sizes 500x32 100x84]

A size is images x pixels. The peer is the same network of plain BN, ReLU and max-pooling. Ends with one line of JSON a figure.
"""

import argparse
from functools import partial

import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.bench import medians, report
from fewshot_nsl.devices import keep_freed_memory, resolve_device


def networks(side: int, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """Ours, and the plain one with the same weights; channels last, nothing to be learned."""
    ours = CNN4(side, 3, mean=[127.5] * 3, std=[64.0] * 3).blocks
    plain = nn.Sequential(*(nn.Sequential(stage[0], _plain(stage[-1]), nn.ReLU(inplace=True), nn.MaxPool2d(2)) for stage in ours))
    for network in (ours, plain):
        network.to(device, memory_format=torch.channels_last).eval().requires_grad_(requires_grad=False)
    return ours, plain


def _plain(norm: NormReluPool2d) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(norm.num_features)
    plain.load_state_dict(norm.state_dict())
    return plain


def forward(network: nn.Module, images: Tensor) -> None:
    """Features of a frozen backbone."""
    with torch.no_grad():
        network(images)


def forward_and_backward(network: nn.Module, images: Tensor) -> None:
    """What an inner step asks of the layers above the one that moves."""
    images = images.detach().requires_grad_()
    network(images).sum().backward()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", nargs="+", default=["500x32", "100x84"])
    arguments = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(arguments.device)
    for size in arguments.sizes:
        count, side = map(int, size.split("x"))
        ours, plain = networks(side, device)
        images = torch.randn(count, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
        assert torch.equal(ours(images), plain(images))
        for name, work in (("forward", forward), ("forward and backward", forward_and_backward)):
            works = {"ours": partial(work, ours, images), "plain": partial(work, plain, images)}
            spent = medians(works, device, arguments.rounds)
            report(f"CNN-4, {size}, fixed statistics, {name}: time over pooling last", spent["ours"], spent["plain"], "ms", device)


if __name__ == "__main__":
    main()
