"""From a checkpoint back to a backbone or a strategy, and from a workspace to the checkpoints it has."""

from collections.abc import Mapping
from typing import Any

import torch

from fewshot_nsl.backbones import Backbone, build_model
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES, LearnsClassifier, Strategy, check_settings, check_strategy
from fewshot_nsl.training.checkpoint import Checkpoint, load_checkpoint, load_state
from fewshot_nsl.training.row import Row
from fewshot_nsl.training.run import find_run
from fewshot_nsl.workspace import Workspace


def restore_backbone(checkpoint: Checkpoint) -> Backbone:
    """The pretrained backbone, on the CPU.

    Raises:
        CheckpointError: its weights are not those of the model its card describes.
    """
    backbone = build_model(checkpoint.card.description)
    load_state(backbone, checkpoint.part("backbone"), checkpoint.path)
    return backbone


def restore_strategy(name: str, checkpoint: Checkpoint, device: torch.device, settings: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy `name` as `checkpoint` left it, ready to be evaluated on `device`.

    `settings` are those of a strategy that is not trained on episodes, by default its own; another's are in its checkpoint.

    Raises:
        ConfigurationError: no such strategy, or a setting that it does not have.
        CheckpointError: the checkpoint is of another network than the strategy takes, or lacks a classifier that the strategy learns from.
    """
    entry = STRATEGIES[check_strategy(name)]
    card = checkpoint.card
    if card.network != entry.network:
        raise CheckpointError(f"checkpoint {checkpoint.path} is of network '{card.network}': strategy {name} takes '{entry.network}'")
    if name in META_STRATEGIES:
        learner = META_STRATEGIES[name].build(build_model(card.description), **card.settings)
        load_state(learner, checkpoint.tensors, checkpoint.path)
        return learner.to(device)
    strategy = entry.build(restore_backbone(checkpoint).to(device), **check_settings(name, settings or {}))
    if isinstance(strategy, LearnsClassifier):
        classifier = checkpoint.part("classifier")
        if classifier.keys() != {"weight", "bias"}:
            raise CheckpointError(
                f"checkpoint {checkpoint.path} has no classifier of its base classes, which strategy {name} learns from; pretrain it again"
            )
        strategy.learn_classifier(classifier["weight"].to(device), classifier["bias"].to(device))
    return strategy


def check_store(checkpoint: Checkpoint, store: ImageStore, *, force: bool = False) -> None:
    """Whether the checkpoint can be used on this store. Another dataset is cross-domain, and allowed.

    Raises:
        CheckpointError: images of another size; or the same dataset with other pixels, unless `force`.
    """
    card, description = checkpoint.card, checkpoint.card.description
    expected = (description.image_size, description.image_size, description.channels)
    if store.images.shape[1:] != expected:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} takes images of {list(expected)}: {store.name} has {list(store.images.shape[1:])} (height, "
            f"width, channels)"
        )
    if card.dataset == store.name and card.fingerprint != store.fingerprint and not force:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} was trained on another {store.name}: fingerprint {card.fingerprint[:12]}, here "
            f"{store.fingerprint[:12]}; prepare the same images, or pass --force"
        )


def find_checkpoint(workspace: Workspace, dataset: str, backbone: str, network: str, seed: int) -> Checkpoint | None:
    """The best checkpoint of the one finished run of this dataset, backbone, network and seed; None if there is none.

    Raises:
        CheckpointError: there are several.
    """
    run = find_run(workspace, dataset, backbone, network, seed)
    return load_checkpoint(run.best) if run else None


def find_pretrained(workspace: Workspace, dataset: str, backbone: str, network: str, seed: int) -> Checkpoint:
    """The backbone that meta-training starts from; `network` as in `MetaStrategyEntry.pretrained`.

    Raises:
        CheckpointError: there is no finished run of it, or there are several.
    """
    checkpoint = find_checkpoint(workspace, dataset, backbone, network, seed)
    if checkpoint is None:
        raise CheckpointError(
            f"no {network} {backbone} is pretrained on {dataset} with seed {seed} in {workspace.runs}; "
            f"train it first: fewshot-nsl pretrain --dataset {dataset} --network {network}"
        )
    return checkpoint


def gather_rows(
    workspace: Workspace, dataset: str, backbone: str, seed: int, *, strategies: list[str], given: list[Checkpoint]
) -> list[Row]:
    """Which strategies can be evaluated, each with its checkpoint, in the order of `STRATEGIES`.

    Args:
        workspace: its finished runs of `dataset`, `backbone` and `seed` are looked through, unless checkpoints are given.
        dataset: of the runs.
        backbone: of the runs.
        seed: of the runs.
        strategies: names asked for; none means all.
        given: checkpoints to use in place of the runs.

    Raises:
        ConfigurationError: an unknown strategy.
        CheckpointError: nothing to evaluate, a strategy asked for by name has no checkpoint, or several runs fit.
    """
    wanted = [check_strategy(name) for name in strategies] or list(STRATEGIES)
    rows: list[Row] = []
    for name in (name for name in STRATEGIES if name in wanted):
        network = STRATEGIES[name].network
        run = None if given else find_checkpoint(workspace, dataset, backbone, network, seed)
        found = [checkpoint for checkpoint in [*given, run] if checkpoint and checkpoint.card.network == network]
        if not found and strategies:
            command = f"meta-train --strategy {name}" if name in META_STRATEGIES else f"pretrain --network {network}"
            raise CheckpointError(
                f"strategy {name} has no checkpoint of network '{network}' for {dataset}, {backbone}, seed {seed}; "
                f"train one: fewshot-nsl {command} --dataset {dataset}"
            )
        rows += [Row(name, checkpoint) for checkpoint in found]
    if not rows:
        raise CheckpointError(
            f"no strategy has a checkpoint for {dataset}, {backbone}, seed {seed} in {workspace.runs}; "
            f"train first: fewshot-nsl pretrain --dataset {dataset}"
        )
    return rows
