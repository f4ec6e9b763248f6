"""Training on episodes: Adam on the mean of a strategy's loss over a meta-batch of tasks; on base images, where it asks for them."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeLoader, EpisodeSampler, augment
from fewshot_nsl.evaluate import evaluate
from fewshot_nsl.strategies import CoTrains, EpisodeLearner
from fewshot_nsl.training.base_images import BaseImages
from fewshot_nsl.training.loop import restore_optimizer
from fewshot_nsl.training.streams import stream


class Episodic:
    """Step i trains on episodes `i * meta_batch ...` of the `train` split, or, of what `CoTrains`, maybe on base images; a `Trainee`.

    Only parameters that ask for a gradient are given to Adam, with a learning rate that falls from `lr` to 0 along a cosine. Validation is
    the shared evaluator on `val` episodes, the same every time. `augmentations` are of the training
    images, supports and queries alike. `tasks_at_once` bounds memory: the gradients of so many tasks are taken
    together, and then added up; by default those of the whole meta-batch.

    Raises:
        EpisodeError: the store cannot give such episodes.
        ConfigurationError: the strategy co-trains on another number of base classes.
    """

    def __init__(
        self,
        strategy: EpisodeLearner,
        store: ImageStore,
        device: torch.device,
        *,
        n_way: int,
        n_shot: int,
        n_query: int,
        iterations: int,
        meta_batch: int,
        lr: float,
        validation_episodes: int,
        validation_n_way: int | None = None,
        augmentations: Collection[str] = (),
        seed: int,
        tasks_at_once: int | None = None,
    ) -> None:
        self.strategy, self.store, self.device = strategy, store, device
        self.iterations, self.lr = iterations, lr
        self.augmentations, self.seed = augmentations, seed
        self.validation_episodes = validation_episodes
        self.tasks_at_once = min(tasks_at_once or meta_batch, meta_batch)
        train = EpisodeSampler(store.split_labels("train"), n_way, n_shot, n_query, seed, names=store.classes)
        self._validation = EpisodeSampler(store.split_labels("val"), validation_n_way or n_way, n_shot, n_query, seed, names=store.classes)
        # No end: a stopped run asks for any batch by its number.
        self._batches = EpisodeLoader(EpisodeDataset(store, train, 2**62, meta_batch), device)
        self._base = BaseImages(strategy, store, steps=iterations, seed=seed) if isinstance(strategy, CoTrains) else None
        self.optimizer = torch.optim.Adam([p for p in strategy.parameters() if p.requires_grad], lr)

    def step(self, index: int) -> dict[str, float]:
        """One meta-batch, or one batch of base images; of these "accuracy" is logged too."""
        lr = self.lr * (1 + math.cos(math.pi * index / self.iterations)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        drawn = self._base.draw(index) if self._base else None
        metrics = self._learn_tasks(self.batch(index)) if drawn is None else self._learn_classes(index, *drawn)
        self.optimizer.step()
        return metrics | {"lr": lr}

    def batch(self, index: int) -> EpisodeBatch:
        """What step `index` trains on: a function of seed and `index`, the changes of images too."""
        batch = self._batches[index]
        if not self.augmentations:
            return batch
        images = torch.cat([batch.support, batch.query], dim=1)
        changed = self._augment(index, images.flatten(0, 1)).unflatten(0, images.shape[:2])
        support, query = changed.split([batch.support.shape[1], batch.query.shape[1]], dim=1)
        return replace(batch, support=support, query=query)

    def validate(self) -> float:
        """Mean accuracy on the validation episodes, after adapting as at test."""
        return float(evaluate(self.strategy, self.store, self._validation, self.validation_episodes, self.device).mean())

    def weights(self) -> dict[str, Tensor]:
        """The whole strategy, with what never moves."""
        return self.strategy.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Weights and optimizer state."""
        self.strategy.load_state_dict({name: tensors[name] for name in self.strategy.state_dict()})
        restore_optimizer(self.optimizer, tensors)

    def _learn_tasks(self, batch: EpisodeBatch) -> dict[str, float]:
        total = 0.0
        for part in batch.split(self.tasks_at_once):
            loss = self.strategy.loss(part).sum() / len(batch.support)
            loss.backward()
            total += loss.item()
        return {"loss": total}

    def _learn_classes(self, index: int, rows: Int64[Tensor, " n"], targets: Int64[Tensor, " n"]) -> dict[str, float]:
        assert isinstance(self.strategy, CoTrains)
        images, targets = self._augment(index, self._batches.read(rows)), targets.to(self.device)
        logits = self.strategy.base_logits(images)
        loss = functional.cross_entropy(logits, targets)
        loss.backward()
        return {"loss": loss.item(), "accuracy": (logits.argmax(1) == targets).float().mean().item()}

    def _augment(self, index: int, images: UInt8[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
        return augment(images, self.augmentations, stream(self.seed, "augment", index))
