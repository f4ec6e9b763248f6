"""Pretraining: images a second, against the same network in contiguous eager PyTorch fed by a DataLoader.

    python evaluate/benchmarks/pretraining.py [--device auto|cpu|cuda] [--rounds 7] [--steps 4] [--sizes 84 32] [--networks plain dynamic]

Steps of 128 images, crop and flip, SGD with momentum, CNN-4 with 32 filters and 64 classes. Ends with one line of JSON a figure.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import count

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torch.utils.flop_counter import FlopCounterMode

from fewshot_nsl.backbones import ModelDescription, build_model
from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.bench import Work, ceilings, made_up_store, medians, report
from fewshot_nsl.data import ImageStore
from fewshot_nsl.devices import keep_freed_memory, resolve_device
from fewshot_nsl.kernels import choose_native
from fewshot_nsl.similarity import DynamicSimilarityConv2d
from fewshot_nsl.training.supervised import Supervised

CLASSES, WIDTH = 64, 32
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
WORKERS = (0, 2)
"""Of the peer's DataLoader; the faster is its figure."""


class Images(Dataset[tuple[Tensor, int]]):
    """One image at a time, changed and normalised, as datasets of images are usually written; on tensors, which costs less than PIL."""

    def __init__(self, store: ImageStore) -> None:
        self.images, self.labels = store.images, store.labels
        self.mean, self.std = (torch.tensor(values)[:, None, None] for values in (store.mean, store.std))

    def __len__(self) -> int:
        """Images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image and label."""
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)
        side, margin = image.shape[1], image.shape[1] // 8
        top, left = torch.randint(2 * margin + 1, (2,)).tolist()
        image = functional.pad(image, 4 * [margin])[:, top : top + side, left : left + side]
        if torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image.float() - self.mean) / self.std, int(self.labels[index])


class UnfoldedDynamic(nn.Module):
    """Dynamic diagonal similarity by `unfold`: what the taps see, under the mask M, times the filters."""

    def __init__(self, layer: DynamicSimilarityConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        """Of `[n, c, h, w]`."""
        n, c, height, width = images.shape
        seen = functional.unfold(images, 3, padding=1).unflatten(1, (c, 9))
        masked = (seen * self.layer.predict(images).flatten(2)[:, None]).flatten(1, 2)
        return (self.layer.weight.flatten(1) @ masked).view(n, -1, height, width)


def contiguous_network(description: ModelDescription) -> nn.Sequential:
    """The network of this description as it is usually written, with a classifier; for images that are normalised already."""
    backbone = build_model(description)
    layers: list[nn.Module] = []
    for layer in (layer for stage in backbone.get_submodule("blocks").children() for layer in stage.children()):
        if isinstance(layer, NormReluPool2d):
            layers += [nn.BatchNorm2d(layer.num_features), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        else:
            layers.append(UnfoldedDynamic(layer) if isinstance(layer, DynamicSimilarityConv2d) else layer)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(backbone.features, CLASSES))


def check_equal(description: ModelDescription) -> None:
    """The peer's network computes what ours does."""
    images = torch.randint(256, (4, 3, description.image_size, description.image_size), dtype=torch.uint8)
    torch.manual_seed(0)
    ours = build_model(description)
    torch.manual_seed(0)
    peer = contiguous_network(description)[:-1]
    torch.testing.assert_close(peer(Normalise(description.mean, description.std)(images).contiguous()), ours(images), rtol=1e-3, atol=1e-3)


class Peer:
    """Steps of the contiguous network, its batches from a DataLoader with so many workers."""

    def __init__(
        self, store: ImageStore, description: ModelDescription, device: torch.device, *, steps: int, batch: int, workers: int
    ) -> None:
        images = Images(store)
        sampler = RandomSampler(images, num_samples=steps * batch)
        pinned = device.type == "cuda"
        # Workers stay between rounds, and rest there: all that they fetched is used up.
        self.loader = DataLoader(images, batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0, pin_memory=pinned)
        self.network, self.device = contiguous_network(description).to(device).train(), device
        self.optimizer = torch.optim.SGD(self.network.parameters(), LR, MOMENTUM, weight_decay=DECAY, nesterov=True)

    def round(self) -> None:
        """All batches of a round."""
        for images, labels in self.loader:
            self.step(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)).item()

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One batch; the loss."""
        loss = functional.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def operations(self, batch: int, side: int) -> int:
        """Of the convolutions and products of a step, forwards and backwards."""
        images, labels = torch.randn(batch, 3, side, side, device=self.device), torch.zeros(batch, dtype=torch.int64, device=self.device)
        with FlopCounterMode(display=False) as counter:
            self.step(images, labels)
        return counter.get_total_flops()


def compare(network: str, side: int, device: torch.device, arguments: argparse.Namespace) -> None:
    """The figures of one network at one size."""
    steps, batch = arguments.steps, arguments.batch
    store = made_up_store(side, CLASSES, max(20, 2 * batch // CLASSES), split="train")
    dynamic = network == "dynamic"
    description = ModelDescription(
        backbone="cnn4",
        image_size=side,
        channels=3,
        width=WIDTH,
        mean=store.mean,
        std=store.std,
        similarity="dynamic" if dynamic else "plain",
        structure="diagonal" if dynamic else None,
    )
    check_equal(description)
    kernels = choose_native("auto", device, announce=lambda line: print(line, file=sys.stderr))
    ours = Supervised(
        store,
        description,
        device,
        epochs=10**6,
        batch_size=batch,
        lr=LR,
        momentum=MOMENTUM,
        weight_decay=DECAY,
        augmentations=store.augmentations,
        seed=0,
        kernels=kernels,
    )
    peers = {f"{workers} workers": Peer(store, description, device, steps=steps, batch=batch, workers=workers) for workers in WORKERS}
    normalise, numbers = Normalise(store.mean, store.std).to(device), count()

    def step() -> None:
        ours.step(next(numbers))

    def feed() -> None:
        normalise(ours.batch(next(numbers))[0])

    works: dict[str, Work] = {"ours": partial(repeat, step, steps), "feeding ours": partial(repeat, feed, steps)}
    spent = medians(works | {name: peer.round for name, peer in peers.items()}, device, arguments.rounds)
    best = min(peers, key=lambda name: spent[name])
    rates = {name: 1e3 * steps * batch / milliseconds for name, milliseconds in spent.items()}
    name = f"pretraining, CNN-4 {network}, {batch}x{side}"
    report(f"{name}: rate over contiguous PyTorch, {best}", rates["ours"], rates[best], "images/s", device)
    report(f"{name}: input over the whole step", spent["feeding ours"] / steps, spent["ours"] / steps, "ms", device)
    floor = 1e3 * peers[best].operations(batch, side) / ceilings(device)[0]
    report(f"{name}: time over floor", spent["ours"] / steps, floor, "ms", device)


def repeat(work: Callable[[], None], times: int) -> None:
    """One round."""
    for _ in range(times):
        work()


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--sizes", nargs="+", type=int, default=[84, 32], help="pixels on a side")
    parser.add_argument("--networks", nargs="+", default=["plain", "dynamic"], choices=["plain", "dynamic"])
    arguments = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(arguments.device)
    for side in arguments.sizes:
        for network in arguments.networks:
            compare(network, side, device, arguments)


if __name__ == "__main__":
    main()
