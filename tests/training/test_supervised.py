from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_nsl.backbones import ModelDescription
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.training.loop import optimizer_tensors
from fewshot_nsl.training.supervised import HELD_OUT, Supervised, one_cycle

CPU = torch.device("cpu")
OPTIONS: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 24,
    "lr": 0.2,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "augmentations": ("crop", "flip"),
    "seed": 5,
}


def _trainee(store: ImageStore, **options: Any) -> Supervised:
    description = ModelDescription(backbone="cnn4", image_size=16, channels=3, width=4, mean=store.mean, std=store.std)
    return Supervised(store, description, CPU, **(OPTIONS | options))


def _weights_after(store: ImageStore, steps: int, **options: Any) -> dict[str, Tensor]:
    trainee = _trainee(store, **options)
    for index in range(steps):
        trainee.step(index)
    return {name: value.clone() for name, value in trainee.weights().items()}


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _blackened(store: ImageStore, rows: list[int] | range) -> ImageStore:
    images = np.array(store.images)
    images[rows] = 0
    return replace(store, images=images)


def test_the_rate_climbs_from_a_25th_to_its_peak_and_falls_to_almost_nothing() -> None:
    assert one_cycle(0.0, 0.5) == pytest.approx(0.5 / 25)
    assert one_cycle(0.3, 0.5) == pytest.approx(0.5)
    assert one_cycle(0.3 - 1e-9, 0.5) == pytest.approx(0.5)
    assert one_cycle(0.15, 0.5) == pytest.approx((0.5 + 0.5 / 25) / 2)
    assert one_cycle(0.65, 0.5) == pytest.approx(0.25, rel=1e-4)
    assert one_cycle(1.0, 0.5) == pytest.approx(0.5 / 250_000)
    rates = [one_cycle(i / 100, 0.5) for i in range(101)]
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_each_step_uses_the_rate_it_reports(tiny_store: ImageStore) -> None:
    trainee = _trainee(tiny_store)
    assert (trainee.steps_per_epoch, trainee.steps) == (3, 6)  # 72 of 80 images, in batches of 24
    for index in range(6):
        assert trainee.step(index)["lr"] == trainee.optimizer.param_groups[0]["lr"] == one_cycle(index / 6, 0.2)


def test_a_tenth_of_the_base_images_is_not_trained_on_but_validated_on(tiny_store: ImageStore) -> None:
    held = [row for row in tiny_store.splits["train"] if row % 20 % HELD_OUT == HELD_OUT - 1]
    without = _blackened(tiny_store, held)
    assert _equal(_weights_after(tiny_store, 3), _weights_after(without, 3))
    assert _trainee(without).validate() == 0.25  # 2 images of each of 4 classes, all black
    trained = next(row for row in tiny_store.splits["train"] if row not in held)
    assert not _equal(_weights_after(tiny_store, 3), _weights_after(_blackened(tiny_store, [trained]), 3))


def test_validation_and_novel_classes_are_not_seen(tiny_store: ImageStore) -> None:
    blind = _blackened(tiny_store, range(tiny_store.splits["val"].start, tiny_store.splits["test"].stop))
    seeing, other = _trainee(tiny_store), _trainee(blind)
    for index in range(6):
        assert seeing.step(index) == other.step(index)
    assert seeing.validate() == other.validate()


def test_a_seed_is_all_that_is_random(tiny_store: ImageStore) -> None:
    torch.manual_seed(1)
    first = _weights_after(tiny_store, 2)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert _equal(first, _weights_after(tiny_store, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not _equal(first, _weights_after(tiny_store, 2, seed=6))


@pytest.mark.parametrize("augmentations", [(), ("crop", "flip")], ids=["as they are", "changed"])
def test_the_seed_decides_how_images_are_changed(tiny_store: ImageStore, augmentations: tuple[str, ...]) -> None:
    # Copies of one image under the same weights: their order means nothing to the batch statistics, only the changes do.
    store = replace(tiny_store, images=np.tile(tiny_store.images[:1], (200, 1, 1, 1)))
    first, second = (_trainee(store, seed=seed, batch_size=72, augmentations=augmentations) for seed in (5, 6))
    second.restore(first.weights())
    for trainee in (first, second):
        trainee.step(0)
    seen, other = (trainee.weights()["backbone.blocks.0.1.running_mean"] for trainee in (first, second))
    assert torch.allclose(seen, other) == (not augmentations)


@pytest.mark.parametrize("change", [{"augmentations": ()}, {"momentum": 0.0}, {"weight_decay": 0.1}, {"lr": 0.1}])
def test_every_option_matters(tiny_store: ImageStore, change: dict[str, Any]) -> None:
    assert not _equal(_weights_after(tiny_store, 2), _weights_after(tiny_store, 2, **change))


def test_state_goes_on_from_where_it_was_taken(tiny_store: ImageStore) -> None:
    source = _trainee(tiny_store)
    for index in range(3):
        source.step(index)
    saved = {name: value.clone() for name, value in {**source.weights(), **optimizer_tensors(source.optimizer)}.items()}
    target = _trainee(tiny_store, seed=5)
    target.restore(saved)
    for index in range(3, 6):
        assert source.step(index) == target.step(index)
    assert _equal(source.weights(), target.weights())


def test_validation_changes_nothing(tiny_store: ImageStore) -> None:
    trainee = _trainee(tiny_store)
    trainee.step(0)
    before = {name: value.clone() for name, value in trainee.weights().items()}
    assert trainee.validate() == trainee.validate()
    assert _equal(before, trainee.weights())


def test_a_batch_larger_than_the_base_images_is_refused(tiny_store: ImageStore) -> None:
    with pytest.raises(ConfigurationError, match="a batch of 73 images, but only 72 to train on; lower --batch-size"):
        _trainee(tiny_store, batch_size=73)


def _few(store: ImageStore, per_class: int) -> ImageStore:
    rows = np.flatnonzero(np.arange(len(store.labels)) % 20 < per_class)
    splits = {split: range(rows.start // 20 * per_class, rows.stop // 20 * per_class) for split, rows in store.splits.items()}
    return replace(store, images=np.array(store.images[rows]), labels=store.labels[rows], splits=splits)


def test_classes_too_small_to_hold_an_image_out_are_refused(tiny_store: ImageStore) -> None:
    with pytest.raises(ConfigurationError, match=str(HELD_OUT)):
        _trainee(_few(tiny_store, 9)).validate()
