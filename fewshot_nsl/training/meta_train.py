"""Meta-training: a strategy's own loss over episodes of the base classes, selected on `val` episodes (Finn et al. 2017, algorithm 2)."""

import torch
from pydantic import ConfigDict

from fewshot_nsl.backbones import SimilarityChoice, build_model, use_kernels
from fewshot_nsl.config import Config
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.inner_loop import Engine, choose_engine
from fewshot_nsl.precision import resolve_precision
from fewshot_nsl.strategies import Adapting, CoTrainedConfig, MetaTrainConfig, Precise, get_meta_strategy
from fewshot_nsl.training.base_images import count_base_classes
from fewshot_nsl.training.checkpoint import Checkpoint, CheckpointCard
from fewshot_nsl.training.episodic import Episodic
from fewshot_nsl.training.fresh import describe_backbone, initial_weights
from fewshot_nsl.training.loop import Progress, train
from fewshot_nsl.training.restore import check_store, restore_backbone
from fewshot_nsl.training.run import Run, open_run, run_record
from fewshot_nsl.workspace import Workspace, file_checksum


class _FromPretrained(Config):
    """What names a run that starts from a pretrained backbone: its configuration, and the checkpoint; another one is another run."""

    model_config = ConfigDict(extra="allow")

    pretrained_sha256: str


def plan_meta_training(
    workspace: Workspace, store: ImageStore, pretrained: Checkpoint | None, config: MetaTrainConfig
) -> tuple[Run, CheckpointCard, Config]:
    """Where this training is, was or would be, the card of its checkpoints, and what names it; nothing is written.

    Raises:
        CheckpointError: as `meta_train`.
    """
    name = config.strategy
    identity: Config
    if isinstance(config, SimilarityChoice):
        if pretrained is not None:
            raise CheckpointError(f"{name} starts from scratch: expected no checkpoint, got {pretrained.path}; leave --checkpoint out")
        description, augmentations, identity = describe_backbone(config, store, config.similarity, config.structure), [], config
    else:
        network = get_meta_strategy(name).pretrained
        if pretrained is None:
            raise CheckpointError(
                f"{name} starts from a pretrained {network} backbone, got none; train it first: fewshot-nsl pretrain --dataset "
                f"{store.name} --network {network}"
            )
        if pretrained.card.network != network:
            raise CheckpointError(f"checkpoint {pretrained.path} is of network '{pretrained.card.network}': {name} starts from '{network}'")
        check_store(pretrained, store)
        description, augmentations = pretrained.card.description, pretrained.card.augmentations
        identity = _FromPretrained.model_validate({**config.model_dump(), "pretrained_sha256": file_checksum(pretrained.path)})
    of_store = {"base_classes": count_base_classes(store)} if isinstance(config, CoTrainedConfig) else {}
    card = CheckpointCard(
        network=name,
        description=description,
        settings=config.arguments() | of_store,
        dataset=store.name,
        fingerprint=store.fingerprint,
        augmentations=sorted({*augmentations, *(store.augmentations if config.augment else [])}),
        seed=config.seed,
        step=0,
    )
    similarity = config.similarity if isinstance(config, SimilarityChoice) else "plain"
    return open_run(workspace, card, identity, similarity=similarity), card, identity


def meta_train(
    workspace: Workspace,
    store: ImageStore,
    pretrained: Checkpoint | None,
    config: MetaTrainConfig,
    device: torch.device,
    *,
    engine: Engine | None = None,
    tasks_at_once: int | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Train a strategy; the run's `best` checkpoint has the highest accuracy on `val` episodes.

    Args:
        workspace: where the run is.
        store: its classes of `train` teach, those of `val` choose.
        pretrained: the backbone to start from; None for a strategy that starts from scratch.
        config: of the strategy that it names.
        device: what is computed on.
        engine: of the inner loop, or, where there is none, of the backbone's stages; by default the fast one on torch's operators, or in
            half precision `higher`. Another gives the same, to rounding, and is the same run.
        tasks_at_once: so many tasks of a meta-batch are in memory together; by default all.
        resume: go on where the same run stopped; otherwise begin it again.
        progress: called after every step.

    Raises:
        CheckpointError: `pretrained` is missing, not wanted, of another network than the strategy starts from, or of another store.
        ConfigurationError: sizes that the backbone refuses, or an engine that does not compute in the precision.
        DeviceError: a precision that the device does not have.
        EpisodeError: the store cannot give such episodes.
        TrainingError: the loss is not finite, or a signal asked to stop; the same call resumes.
    """
    precision = resolve_precision(config.precision, device)
    run, card, identity = plan_meta_training(workspace, store, pretrained, config)
    if not resume:
        run.clear()
    if run.finished:
        return run
    with initial_weights(config.seed):
        backbone = restore_backbone(pretrained) if pretrained else build_model(card.description)
        strategy = get_meta_strategy(config.strategy).build(backbone, **card.settings).to(device)
    engine = engine or choose_engine("auto" if precision.half else "plain", device, half=precision.half)
    if isinstance(strategy, Adapting):
        strategy.engine = engine = engine.in_precision(precision)
    else:
        use_kernels(strategy, None if precision.half else engine.kernels)
    if isinstance(strategy, Precise):
        strategy.precision = precision
    trainee = Episodic(
        strategy,
        store,
        device,
        n_way=config.n_way,
        n_shot=config.n_shot,
        n_query=config.n_query,
        iterations=config.iterations,
        meta_batch=config.meta_batch,
        lr=config.lr,
        validation_episodes=config.validation_episodes,
        validation_n_way=config.validation_n_way,
        augmentations=store.augmentations if config.augment else (),
        seed=config.seed,
        tasks_at_once=tasks_at_once,
    )
    record = run_record(card, identity, device) | {"engine": engine.name, "precision": precision.name}
    with precision.products():
        train(run, trainee, card, steps=config.iterations, validate_every=config.validate_every, record=record, progress=progress)
    return run
