"""Pretraining: a backbone and a linear classifier learn the base classes (Liu et al. 2019, section 7.2)."""

from typing import Literal

import torch
from pydantic import Field

from fewshot_nsl.backbones import BackboneChoice
from fewshot_nsl.data import ImageStore
from fewshot_nsl.kernels import Kernels
from fewshot_nsl.precision import PrecisionChoice, resolve_precision
from fewshot_nsl.training.checkpoint import CheckpointCard
from fewshot_nsl.training.fresh import describe_backbone
from fewshot_nsl.training.loop import Progress, train
from fewshot_nsl.training.run import Run, open_run, run_record
from fewshot_nsl.training.supervised import Supervised
from fewshot_nsl.workspace import Workspace


class PretrainConfig(BackboneChoice, PrecisionChoice):
    """Everything that decides the result, the images apart."""

    network: Literal["plain", "dynamic"] = Field(description="convolutions of the backbone")
    epochs: int = Field(default=30, gt=0)
    batch_size: int = Field(default=128, gt=1, description="images")
    lr: float = Field(default=0.1, gt=0, description="peak learning rate of the one-cycle schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    augment: bool = Field(default=True, description="crop and flip, as far as the dataset's card says that they keep the label")
    seed: int = Field(default=0, ge=0, lt=2**63)


def plan_pretraining(workspace: Workspace, store: ImageStore, config: PretrainConfig) -> tuple[Run, CheckpointCard]:
    """Where this training is, was or would be, and the card of its checkpoints; nothing is written.

    Raises:
        ConfigurationError: no such backbone.
    """
    card = CheckpointCard(
        network=config.network,
        description=describe_backbone(config, store, config.network),
        dataset=store.name,
        fingerprint=store.fingerprint,
        augmentations=list(store.augmentations) if config.augment else [],
        seed=config.seed,
        step=0,
    )
    return open_run(workspace, card, config), card


def pretrain(
    workspace: Workspace,
    store: ImageStore,
    config: PretrainConfig,
    device: torch.device,
    *,
    kernels: Kernels | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Train on the base classes; the run's `best` checkpoint has the highest accuracy on held-out images of the same classes.

    Args:
        workspace: where the run is.
        store: its classes of `train` are learned.
        config: how.
        device: what is computed on.
        kernels: for a CPU, see `choose_native`; by default torch's own operators. Others give the same, to rounding, and are the same run.
            In half precision they are not used.
        resume: go on where the same run stopped; otherwise begin it again.
        progress: called after every step.

    Raises:
        ConfigurationError: sizes that the backbone refuses.
        DeviceError: a precision that the device does not have.
        TrainingError: the loss is not finite, or a signal asked to stop; the same call resumes.
    """
    precision = resolve_precision(config.precision, device)
    kernels = None if precision.half else kernels
    run, card = plan_pretraining(workspace, store, config)
    if not resume:
        run.clear()
    if run.finished:
        return run
    trainee = Supervised(
        store,
        card.description,
        device,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        augmentations=card.augmentations,
        seed=config.seed,
        kernels=kernels,
        precision=precision,
    )
    # As meta-training's engines are called.
    record = run_record(card, config, device) | {"engine": "fast" if kernels else "plain", "precision": precision.name}
    with precision.products():
        train(run, trainee, card, steps=trainee.steps, validate_every=trainee.steps_per_epoch, record=record, progress=progress)
    return run
