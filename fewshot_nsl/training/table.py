"""From checkpoints to the table: every strategy on the same episodes, with everything needed to do it again."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import numpy as np
import torch

from fewshot_nsl.backbones import ModelDescription, build_model
from fewshot_nsl.data import ImageStore
from fewshot_nsl.devices import describe_hardware
from fewshot_nsl.episodes import EpisodeDataset, EpisodeLoader, EpisodeSampler, FrozenEpisodes
from fewshot_nsl.errors import DataError
from fewshot_nsl.evaluate import Evaluation, ResultRow, evaluate, normal_interval, read_images
from fewshot_nsl.inner_loop import Engine, higher
from fewshot_nsl.precision import Precision
from fewshot_nsl.strategies import (
    META_STRATEGIES,
    STRATEGIES,
    Adapting,
    EpisodeLearner,
    FeatureLearner,
    FeatureStrategy,
    Learner,
    LearnsBase,
    PreciseEncoder,
)
from fewshot_nsl.training.checkpoint import Checkpoint, current_versions
from fewshot_nsl.training.restore import check_store, restore_strategy
from fewshot_nsl.workspace import Workspace, file_checksum

BASE = "train"
"""The split of the base classes."""


def evaluate_rows(
    workspace: Workspace,
    rows: list[tuple[str, Checkpoint]],
    store: ImageStore,
    device: torch.device,
    sampler: EpisodeSampler | FrozenEpisodes,
    *,
    split: str,
    episodes: int,
    command: str,
    engine: Callable[[], Engine] | None = None,
    precision: Precision | None = None,
    force: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Evaluate (strategy, checkpoint) pairs on episodes 0 ... `episodes` - 1 of `sampler`.

    Args:
        workspace: paths of checkpoints in it are written relative to it.
        rows: as `gather_rows` gives them.
        store: where the images are.
        device: what is computed on.
        sampler: of `store.split_labels(split)`, or frozen episodes of `split`.
        split: written down.
        episodes: how many.
        command: written down.
        engine: makes the engine of those that take gradient steps, if any do; by default each has its own, or in half precision `higher`.
        precision: of the networks; by default float32.
        force: passed to `check_store`.
        progress: called with a row's title, episodes done and in all.

    Raises:
        EpisodeError: a strategy cannot take such episodes, or fewer are frozen.
        CheckpointError: a checkpoint does not fit the store or the strategy.
        ConfigurationError: an engine that does not compute in the precision.
        DataError: a strategy needs base images, and the store has none.
    """
    # All are checked before the first is computed.
    for _, checkpoint in rows:
        check_store(checkpoint, store, force=force)
    precision = precision or Precision("float32", device)
    strategies = [restore_strategy(name, checkpoint, device) for name, checkpoint in rows]
    adapting = [strategy for strategy in strategies if isinstance(strategy, Adapting)]
    if precision.half:
        engine = engine or higher
    chosen = engine().in_precision(precision) if engine and adapting else None
    if chosen:
        for each in adapting:
            each.engine = chosen
    # Those that adapt to images meet the last episode before any row is computed: what cannot work, or is not there, fails at once.
    last = EpisodeLoader(EpisodeDataset(store, sampler, episodes=1, start=episodes - 1), device)[0]
    for (name, _), strategy in zip(rows, strategies, strict=True):
        if not isinstance(strategy, FeatureLearner):
            strategy.fit(last.support, last.support_labels)
        if isinstance(strategy, LearnsBase) and not store.splits.get(BASE):
            raise DataError(f"{store.name} has no images of split '{BASE}', which {name} wants to see first; leave it out (--strategy)")
    results = []
    for (name, checkpoint), strategy in zip(rows, strategies, strict=True):
        description = checkpoint.card.description
        title = STRATEGIES[name].title
        # One that starts from a pretrained network has a title that names its similarity.
        if name in META_STRATEGIES and META_STRATEGIES[name].from_scratch and description.similarity != "plain":
            title = f"{title}, {description.similarity} NSN"
        began = time.perf_counter()
        with precision.products():
            if isinstance(strategy, LearnsBase):
                with precision.network():
                    strategy.learn_base(read_images(store, np.array(store.splits[BASE]), device))
            learner = PreciseEncoder(strategy, precision) if precision.half and isinstance(strategy, FeatureStrategy) else strategy
            accuracies = evaluate(learner, store, sampler, episodes, device, progress=partial(progress, title) if progress else None)
        interval = normal_interval(accuracies.tolist())
        results.append(
            ResultRow(
                strategy=name,
                title=title,
                backbone=description.backbone,
                width=description.width,
                parameters=_count_parameters(strategy, description),
                checkpoint=workspace.relative(checkpoint.path).as_posix(),
                checkpoint_sha256=file_checksum(checkpoint.path),
                transductive=strategy.transductive,
                trained_on=checkpoint.card.dataset,
                augmentations=checkpoint.card.augmentations,
                accuracy=interval.mean,
                ci95=interval.half_width,
                accuracies=accuracies.tolist(),
                seconds=round(time.perf_counter() - began, 1),
            )
        )
    return Evaluation(
        created=datetime.now(UTC),
        command=command,
        dataset=store.name,
        fingerprint=store.fingerprint,
        split=split,
        n_way=sampler.n_way,
        n_shot=sampler.n_shot[0] if len(set(sampler.n_shot)) == 1 else sampler.n_shot,
        n_query=sampler.n_query,
        episodes=episodes,
        seed=sampler.seed,
        frozen=sampler.fingerprint if isinstance(sampler, FrozenEpisodes) else None,
        hardware=describe_hardware(device),
        engine=chosen.name if chosen else None,
        precision=precision.name,
        versions=current_versions(),
        rows=results,
    )


def _count_parameters(strategy: Learner, description: ModelDescription) -> int:
    """Of what was learned before the episodes: a strategy that is trained on episodes with what it learns beside the backbone."""
    learned = strategy if isinstance(strategy, EpisodeLearner) else build_model(description)
    return sum(parameter.numel() for parameter in learned.parameters())
