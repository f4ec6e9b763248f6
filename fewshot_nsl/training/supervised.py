"""Supervised training of a backbone and a linear classifier on the base classes."""

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import ModelDescription, build_model, use_kernels
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import augment
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.kernels import Kernels
from fewshot_nsl.precision import Precision
from fewshot_nsl.training.fresh import initial_weights
from fewshot_nsl.training.loop import restore_optimizer
from fewshot_nsl.training.streams import stream

HELD_OUT = 10
"""Every tenth image of a base class is held out; a store's rows lie in the order of their checksums, which is as good as random."""


class Supervised:
    """One-cycle SGD on cross entropy; a `Trainee`. The base images lie on the device whole, as uint8.

    `kernels` are what stages are trained with on a CPU (by default torch's own operators; they agree to rounding), `precision` is what the
    network computes in (by default float32).

    Raises:
        ConfigurationError: fewer base images than a batch, or fewer than 10 in every class.
    """

    def __init__(
        self,
        store: ImageStore,
        description: ModelDescription,
        device: torch.device,
        *,
        epochs: int,
        batch_size: int,
        lr: float,
        momentum: float,
        weight_decay: float,
        augmentations: Collection[str],
        seed: int,
        kernels: Kernels | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.precision = precision or Precision("float32", device)
        self.lr, self.batch_size, self.augmentations, self.seed = lr, batch_size, augmentations, seed
        labels = store.split_labels("train")
        rows = np.flatnonzero(labels >= 0)
        self._images = torch.from_numpy(store.images[rows]).to(device).movedim(-1, 1)
        classes, first, targets = np.unique(labels[rows], return_index=True, return_inverse=True)
        self._targets = torch.from_numpy(targets).to(device)
        held = torch.from_numpy((np.arange(len(rows)) - first[targets]) % HELD_OUT == HELD_OUT - 1)
        self._train, self._held = torch.nonzero(~held)[:, 0], torch.nonzero(held)[:, 0]
        if len(self._held) == 0:
            raise ConfigurationError(f"every {HELD_OUT}th image of a base class is held out, but no class of {store.name} has {HELD_OUT}")
        self.steps_per_epoch = len(self._train) // batch_size
        if self.steps_per_epoch == 0:
            raise ConfigurationError(f"a batch of {batch_size} images, but only {len(self._train)} to train on; lower --batch-size")
        self.steps = epochs * self.steps_per_epoch
        with initial_weights(seed):
            backbone = build_model(description)
            classifier = nn.Linear(backbone.features, len(classes))
        self._model = nn.Sequential(OrderedDict(backbone=backbone, classifier=classifier)).to(device)
        use_kernels(backbone, kernels)
        self.optimizer = torch.optim.SGD(self._model.parameters(), lr, momentum, weight_decay=weight_decay, nesterov=momentum > 0)

    def step(self, index: int) -> dict[str, float]:
        """One batch."""
        images, targets = self.batch(index)
        lr = one_cycle(index / self.steps, self.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self._model.train()
        logits = self._logits(images)
        loss = functional.cross_entropy(logits, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == targets).float().mean().item(), "lr": lr}

    def batch(self, index: int) -> tuple[UInt8[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        """What step `index` trains on; which images, and which changes of them, is a function of seed and `index`."""
        epoch, batch = divmod(index, self.steps_per_epoch)
        order = self._train[torch.randperm(len(self._train), generator=stream(self.seed, "order", epoch))]
        images, targets = self._gather(order[batch * self.batch_size : (batch + 1) * self.batch_size])
        return augment(images, self.augmentations, stream(self.seed, "augment", index)), targets

    @torch.no_grad()
    def validate(self) -> float:
        """Accuracy on the held-out images, all base classes against each other."""
        self._model.eval()
        correct = 0
        for places in self._held.split(512):
            images, targets = self._gather(places)
            correct += int((self._logits(images).argmax(1) == targets).sum())
        return correct / len(self._held)

    def weights(self) -> dict[str, Tensor]:
        """`backbone.…` and the `classifier.…` of the base classes."""
        return self._model.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights and optimizer state."""
        self._model.load_state_dict({name: tensors[name] for name in self._model.state_dict()})
        restore_optimizer(self.optimizer, tensors)

    def _logits(self, images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        with self.precision.network():
            logits: Tensor = self._model(images)
        return logits.float()

    def _gather(self, places: Int64[Tensor, " n"]) -> tuple[UInt8[Tensor, "n c h w"], Int64[Tensor, " n"]]:
        places = places.to(self._images.device)
        return self._images[places], self._targets[places]


def one_cycle(progress: float, peak: float) -> float:
    """Learning rate at `progress` in [0, 1]: a cosine from peak / 25 up to `peak` at 0.3, then down to almost 0 (Smith and Topin 2018)."""
    start, end, turn = peak / 25, peak / 250_000, 0.3
    if progress < turn:
        return peak + (start - peak) * (1 + math.cos(math.pi * progress / turn)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * (progress - turn) / (1 - turn))) / 2
