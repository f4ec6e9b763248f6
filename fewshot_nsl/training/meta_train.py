"""Meta-training: a strategy's own loss over episodes of the base classes, selected on `val` episodes (Finn et al. 2017, algorithm 2)."""

import torch
from pydantic import Field, field_validator

from fewshot_nsl.config import Config
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.strategies import META_STRATEGIES
from fewshot_nsl.training.checkpoint import Checkpoint, CheckpointCard
from fewshot_nsl.training.episodic import Episodic
from fewshot_nsl.training.loop import Progress, train
from fewshot_nsl.training.restore import check_store, restore_backbone
from fewshot_nsl.training.run import Run, open_run, run_record
from fewshot_nsl.workspace import Workspace, file_checksum


class MetaTrainConfig(Config):
    """Everything that decides the result, images and pretrained weights apart."""

    strategy: str = Field(default="meta-static", description="a name in META_STRATEGIES")
    n_way: int = Field(default=5, gt=1)
    n_shot: int = Field(default=5, gt=0)
    n_query: int = Field(default=15, gt=0, description="per class")
    iterations: int = Field(default=1000, gt=0, description="outer steps")
    meta_batch: int = Field(default=2, gt=0, description="tasks of an outer step")
    lr: float = Field(default=1e-3, gt=0, description="of Adam, outside; falls to 0 along a cosine")
    inner_lr: float = Field(default=0.01, gt=0, description="of M")
    inner_lr_classifier: float = Field(default=10.0, gt=0)
    inner_steps: int = Field(default=5, ge=0)
    inner_test_steps: int = Field(default=10, ge=0)
    first_order: bool = False
    validate_every: int = Field(default=100, gt=0, description="outer steps")
    validation_episodes: int = Field(default=100, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("strategy")
    @classmethod
    def _is_trained_on_episodes(cls, name: str) -> str:
        if name not in META_STRATEGIES:
            raise ValueError(f"it is not trained on episodes: expected one of {', '.join(META_STRATEGIES)}")
        return name


class _Identity(MetaTrainConfig):
    """What names the run: another pretrained checkpoint is another run."""

    pretrained_sha256: str


def meta_train(
    workspace: Workspace,
    store: ImageStore,
    pretrained: Checkpoint,
    config: MetaTrainConfig,
    device: torch.device,
    *,
    resume: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Train from a pretrained plain backbone; the run's `best` checkpoint has the highest accuracy on `val` episodes.

    Raises:
        CheckpointError: `pretrained` is not plain, or of another store.
        EpisodeError: the store cannot give such episodes.
        TrainingError: the loss is not finite, or a signal asked to stop; the same call resumes.
    """
    if pretrained.card.network != "plain":
        raise CheckpointError(
            f"checkpoint {pretrained.path} is of network '{pretrained.card.network}': {config.strategy} starts from 'plain'"
        )
    check_store(pretrained, store)
    settings = {
        "n_way": config.n_way,
        "steps": config.inner_steps,
        "test_steps": config.inner_test_steps,
        "lr": config.inner_lr,
        "lr_classifier": config.inner_lr_classifier,
        "first_order": config.first_order,
    }
    card = CheckpointCard(
        network=config.strategy,
        description=pretrained.card.description,
        settings=settings,
        dataset=store.name,
        fingerprint=store.fingerprint,
        augmentations=pretrained.card.augmentations,
        seed=config.seed,
        step=0,
    )
    identity = _Identity(**config.model_dump(), pretrained_sha256=file_checksum(pretrained.path))
    run = open_run(workspace, card, identity)
    if not resume:
        run.clear()
    if run.finished:
        return run
    strategy = META_STRATEGIES[config.strategy](restore_backbone(pretrained), **settings).to(device)
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
        seed=config.seed,
    )
    train(
        run,
        trainee,
        card,
        steps=config.iterations,
        validate_every=config.validate_every,
        record=run_record(card, identity, device),
        progress=progress,
    )
    return run
