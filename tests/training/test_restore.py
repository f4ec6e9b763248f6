from dataclasses import replace

import numpy as np
import pytest
import torch

from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import CheckpointError, ConfigurationError
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES, DiscriminativeKShot, EpisodeLearner, RetrainedClassifier
from fewshot_nsl.training import (
    Checkpoint,
    CheckpointCard,
    PretrainConfig,
    Row,
    Run,
    check_store,
    find_checkpoint,
    find_pretrained,
    gather_rows,
    load_checkpoint,
    pretrain,
    restore_backbone,
    restore_strategy,
)
from fewshot_nsl.workspace import Workspace

CPU = torch.device("cpu")


@pytest.fixture
def plain(plain_run: Run) -> Checkpoint:
    return load_checkpoint(plain_run.best)


@pytest.fixture
def dynamic(dynamic_run: Run) -> Checkpoint:
    return load_checkpoint(dynamic_run.best)


@pytest.fixture
def meta(meta_run: Run) -> Checkpoint:
    return load_checkpoint(meta_run.best)


@pytest.fixture
def checkpoints(network_runs: dict[str, Run]) -> dict[str, Checkpoint]:
    """One of every network."""
    return {network: load_checkpoint(run.best) for network, run in network_runs.items()}


def _recarded(checkpoint: Checkpoint, **changes: object) -> Checkpoint:
    return checkpoint.model_copy(update={"card": checkpoint.card.model_copy(update=changes)})


@pytest.mark.parametrize("network", ["plain", "dynamic"])
def test_a_backbone_comes_back_with_its_weights_and_statistics(plain: Checkpoint, dynamic: Checkpoint, network: str) -> None:
    checkpoint = plain if network == "plain" else dynamic
    state = restore_backbone(checkpoint).state_dict()
    assert all(torch.equal(value, checkpoint.tensors[f"backbone.{name}"]) for name, value in state.items())
    assert int(state["blocks.0.1.num_batches_tracked"]) == checkpoint.card.step


def test_weights_of_another_model_are_refused(plain: Checkpoint) -> None:
    other = _recarded(plain, description=plain.card.description.model_copy(update={"width": 5}))
    message = rf"{plain.path} is of another model: 'blocks\.0\.0\.weight' is \(4, 3, 3, 3\), expected \(5, 3, 3, 3\)"
    with pytest.raises(CheckpointError, match=message):
        restore_backbone(other)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_restored_from_its_network(checkpoints: dict[str, Checkpoint], name: str) -> None:
    strategy = restore_strategy(name, checkpoints[STRATEGIES[name].network], CPU)
    assert isinstance(strategy, EpisodeLearner) == (name in META_STRATEGIES)
    if isinstance(strategy, EpisodeLearner):
        assert strategy.name == name


def test_a_restored_strategy_computes_with_the_restored_backbone(plain: Checkpoint, tiny_store: ImageStore) -> None:
    strategy = restore_strategy("retrained", plain, CPU)
    assert isinstance(strategy, RetrainedClassifier)
    images = torch.from_numpy(tiny_store.images[np.arange(5)]).movedim(-1, 1)
    features = restore_backbone(plain).eval()(images).detach()
    torch.testing.assert_close(strategy.encode(images), features / features.norm(dim=1, keepdim=True))


def test_a_strategy_that_learns_from_the_base_classifier_is_given_the_checkpoints(plain: Checkpoint) -> None:
    strategy = restore_strategy("k-shot", plain, CPU)
    assert isinstance(strategy, DiscriminativeKShot)
    rows = torch.cat([plain.tensors["classifier.weight"], plain.tensors["classifier.bias"][:, None]], dim=1)
    assert rows.shape == (4, 5)
    assert strategy.variance == pytest.approx(float(rows.var(0, correction=0).mean()))
    bare = plain.model_copy(update={"tensors": {f"backbone.{name}": value for name, value in plain.part("backbone").items()}})
    message = f"checkpoint {plain.path} has no classifier of its base classes, which strategy k-shot learns from; pretrain it again"
    with pytest.raises(CheckpointError, match=message):
        restore_strategy("k-shot", bare, CPU)
    assert isinstance(restore_strategy("retrained", bare, CPU), RetrainedClassifier)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_checkpoint_of_another_network_is_refused(checkpoints: dict[str, Checkpoint], name: str) -> None:
    wanted = STRATEGIES[name].network
    for checkpoint in (each for each in checkpoints.values() if each.card.network != wanted):
        message = f"checkpoint {checkpoint.path} is of network '{checkpoint.card.network}': strategy {name} takes '{wanted}'"
        with pytest.raises(CheckpointError, match=message):
            restore_strategy(name, checkpoint, CPU)


def test_an_unknown_strategy_is_refused(plain: Checkpoint, trained: Workspace) -> None:
    message = "strategy 'magic' is unknown: expected one of nearest-mean, retrained"
    with pytest.raises(ConfigurationError, match=message):
        restore_strategy("magic", plain, CPU)
    with pytest.raises(ConfigurationError, match=message):
        gather_rows(trained, "tiny", "cnn4", 0, strategies=["retrained", "magic"], given=[])


def test_the_same_store_and_another_dataset_of_the_same_size_are_accepted(plain: Checkpoint, tiny_store: ImageStore) -> None:
    check_store(plain, tiny_store)
    check_store(plain, replace(tiny_store, name="other", fingerprint="0" * 64))


def test_the_same_dataset_with_other_pixels_is_refused_unless_forced(plain: Checkpoint, tiny_store: ImageStore) -> None:
    other = replace(tiny_store, fingerprint="0" * 64)
    message = f"{plain.path} was trained on another tiny: fingerprint {tiny_store.fingerprint[:12]}, here 000000000000; .* pass --force"
    with pytest.raises(CheckpointError, match=message):
        check_store(plain, other)
    check_store(plain, other, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_images_of_another_size_are_refused_even_if_forced(plain: Checkpoint, tiny_store: ImageStore, *, force: bool) -> None:
    grey = replace(tiny_store, name="grey", images=np.array(tiny_store.images[..., :1]))
    message = rf"{plain.path} takes images of \[16, 16, 3\]: grey has \[16, 16, 1\] \(height, width, channels\)"
    with pytest.raises(CheckpointError, match=message):
        check_store(plain, grey, force=force)


def test_the_best_checkpoint_of_the_finished_run_is_found(trained: Workspace, plain: Checkpoint, plain_run: Run, dynamic_run: Run) -> None:
    found = find_checkpoint(trained, "tiny", "cnn4", "plain", 0)
    assert found is not None
    assert found.path == plain.path
    for network, run in (("plain", plain_run), ("dynamic", dynamic_run)):
        assert find_pretrained(trained, "tiny", "cnn4", network, 0).path == run.best
    assert find_checkpoint(trained, "tiny", "cnn4", "plain", 1) is None


@pytest.mark.parametrize("network", ["plain", "dynamic"])
def test_where_nothing_is_pretrained_the_command_is_named(workspace: Workspace, network: str) -> None:
    message = f"no {network} cnn4 is pretrained on tiny with seed 3 in .*runs; .* fewshot-nsl pretrain --dataset tiny --network {network}$"
    with pytest.raises(CheckpointError, match=message):
        find_pretrained(workspace, "tiny", "cnn4", network, 3)


def test_several_runs_are_ambiguous(workspace: Workspace, tiny_store: ImageStore) -> None:
    for epochs in (1, 2):
        pretrain(workspace, tiny_store, PretrainConfig(network="plain", width=2, epochs=epochs, batch_size=24), CPU)
    with pytest.raises(CheckpointError, match=r"2 finished runs of tiny cnn4 plain seed 0: choose one with --checkpoint: runs/tiny"):
        find_pretrained(workspace, "tiny", "cnn4", "plain", 0)
    with pytest.raises(CheckpointError, match="2 finished runs"):
        gather_rows(workspace, "tiny", "cnn4", 0, strategies=[], given=[])


def _names(rows: list[Row]) -> list[str]:
    return [row.strategy for row in rows]


@pytest.mark.usefixtures("network_runs")
def test_every_strategy_with_a_checkpoint_has_a_row(trained: Workspace) -> None:
    rows = gather_rows(trained, "tiny", "cnn4", 0, strategies=[], given=[])
    assert _names(rows) == list(STRATEGIES)
    assert all(row.checkpoint.card.network == STRATEGIES[row.strategy].network for row in rows)


@pytest.mark.usefixtures("network_runs")
def test_rows_can_be_chosen_and_keep_the_order_of_the_table(trained: Workspace) -> None:
    assert _names(gather_rows(trained, "tiny", "cnn4", 0, strategies=["dynamic", "nearest-mean"], given=[])) == ["nearest-mean", "dynamic"]


def test_given_checkpoints_take_the_place_of_the_runs(trained: Workspace, workspace: Workspace, dynamic: Checkpoint) -> None:
    for place in (trained, workspace):
        rows = gather_rows(place, "tiny", "cnn4", 0, strategies=[], given=[dynamic, dynamic])
        assert _names(rows) == ["dynamic", "dynamic"]
        assert rows[0].checkpoint is dynamic


def test_a_chosen_strategy_without_checkpoint_names_the_command(workspace: Workspace, plain: Checkpoint) -> None:
    for name in META_STRATEGIES:
        message = (
            f"strategy {name} has no checkpoint of network '{name}' for tiny, cnn4, seed 0; .* meta-train --strategy {name} --dataset tiny"
        )
        with pytest.raises(CheckpointError, match=message):
            gather_rows(workspace, "tiny", "cnn4", 0, strategies=[name], given=[plain])
    with pytest.raises(CheckpointError, match="train one: fewshot-nsl pretrain --network dynamic --dataset tiny"):
        gather_rows(workspace, "tiny", "cnn4", 0, strategies=["dynamic"], given=[])


def test_nothing_to_evaluate_names_the_command(workspace: Workspace) -> None:
    message = "no strategy has a checkpoint for tiny, cnn4, seed 0 in .*runs; train first: fewshot-nsl pretrain --dataset tiny"
    with pytest.raises(CheckpointError, match=message):
        gather_rows(workspace, "tiny", "cnn4", 0, strategies=[], given=[])


def test_settings_that_do_not_fit_the_weights_are_refused(meta: Checkpoint) -> None:
    card: CheckpointCard = meta.card.model_copy(update={"settings": {**meta.card.settings, "n_way": 4}})
    with pytest.raises(CheckpointError, match=r"is of another model: 'classifier' is \(3, 4\), expected \(4, 4\)"):
        restore_strategy("meta-static", meta.model_copy(update={"card": card}), CPU)
