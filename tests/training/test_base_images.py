from typing import Any

import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.data import ImageStore
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import TADAM
from fewshot_nsl.training.base_images import BaseImages, base_targets, count_base_classes
from fewshot_nsl.training.episodic import Episodic
from fewshot_nsl.training.loop import optimizer_tensors

CPU = torch.device("cpu")
STEPS = 40


def _strategy(store: ImageStore, **settings: Any) -> TADAM:
    torch.manual_seed(0)
    backbone = CNN4(16, 3, width=4, mean=store.mean, std=store.std)
    return TADAM(backbone, **{"base_classes": count_base_classes(store), "base_batch": 8} | settings)


def _draws(store: ImageStore, seed: int = 2) -> BaseImages:
    return BaseImages(_strategy(store), store, steps=STEPS, seed=seed)


def _trainee(store: ImageStore, augmentations: tuple[str, ...] = ()) -> Episodic:
    return Episodic(
        _strategy(store),
        store,
        CPU,
        n_way=3,
        n_shot=1,
        n_query=2,
        iterations=STEPS,
        meta_batch=2,
        lr=0.01,
        validation_episodes=5,
        augmentations=augmentations,
        seed=2,
    )


def test_targets_are_the_classes_of_train_counted_from_nought(tiny_store: ImageStore) -> None:
    rows, targets = base_targets(tiny_store)
    assert rows.tolist() == list(tiny_store.splits["train"])
    names = [tiny_store.labels[row] for row in rows]
    assert targets.tolist() == [sorted(set(names)).index(name) for name in names]
    assert count_base_classes(tiny_store) == len(set(names)) == int(targets.max()) + 1


def test_a_step_is_of_base_images_as_often_as_the_strategy_says(tiny_store: ImageStore) -> None:
    strategy = _strategy(tiny_store)
    draws = BaseImages(strategy, tiny_store, steps=4000, seed=0)
    for start in (0, 2000, 3800):
        taken = [draws.draw(index) is not None for index in range(start, start + 200)]
        assert np.mean(taken) == pytest.approx(strategy.base_share(start, 4000), abs=0.1)


def test_a_draw_is_of_different_base_images_with_their_classes(tiny_store: ImageStore) -> None:
    draws, (rows, targets) = _draws(tiny_store), base_targets(tiny_store)
    label = dict(zip(rows.tolist(), targets.tolist(), strict=True))
    drawn = [taken for index in range(STEPS) if (taken := draws.draw(index)) is not None]
    assert 5 < len(drawn) < STEPS
    for some, classes in drawn:
        assert len(set(some.tolist())) == 8
        assert [label[row] for row in some.tolist()] == classes.tolist()
    assert len({tuple(some.tolist()) for some, _ in drawn}) == len(drawn)


def test_draws_follow_from_seed_and_step_alone(tiny_store: ImageStore) -> None:
    def drawn(draws: BaseImages, order: list[int]) -> dict[int, list[int] | None]:
        return {index: None if (taken := draws.draw(index)) is None else taken[0].tolist() for index in order}

    steps = list(range(STEPS))
    expected = drawn(_draws(tiny_store), steps)
    assert drawn(_draws(tiny_store), steps[::-1]) == expected
    assert drawn(_draws(tiny_store, seed=3), steps) != expected


def test_a_classifier_of_other_classes_is_refused(tiny_store: ImageStore) -> None:
    classes = count_base_classes(tiny_store)
    message = (
        f"^tiny has {classes} base classes, and the classifier of them was built for 64: build the strategy with base_classes={classes}$"
    )
    with pytest.raises(ConfigurationError, match=message):
        BaseImages(_strategy(tiny_store, base_classes=64), tiny_store, steps=STEPS, seed=0)


@pytest.mark.parametrize("augmentations", [(), ("crop", "flip")])
def test_a_step_on_base_images_is_one_of_adam_on_their_cross_entropy(tiny_store: ImageStore, augmentations: tuple[str, ...]) -> None:
    trainee, draws = _trainee(tiny_store, augmentations), _draws(tiny_store)
    index = next(index for index in range(STEPS) if draws.draw(index) is not None)
    before = {name: value.clone() for name, value in trainee.weights().items()}
    drawn = draws.draw(index)
    assert drawn is not None
    rows, targets = drawn
    images = torch.from_numpy(tiny_store.images[rows.numpy()]).movedim(-1, 1)
    logits = _strategy(tiny_store).base_logits(images)
    metrics = trainee.step(index)
    expected = torch.nn.functional.cross_entropy(logits, targets).item()
    assert (metrics["loss"] == pytest.approx(expected, rel=1e-6)) is (not augmentations)
    if not augmentations:
        assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == targets).float().mean().item())
    moved = {name.split(".")[0] for name, value in trainee.weights().items() if not torch.equal(value, before[name])}
    assert moved == {"backbone", "base_classifier"}


def test_other_steps_are_of_episodes(tiny_store: ImageStore) -> None:
    trainee, draws = _trainee(tiny_store), _draws(tiny_store)
    index = next(index for index in range(STEPS) if draws.draw(index) is None)
    expected = _strategy(tiny_store).loss(trainee.batch(index)).mean().item()
    metrics = trainee.step(index)
    assert metrics.keys() == {"loss", "lr"}
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_run_goes_on_to_the_same_bits(tiny_store: ImageStore) -> None:
    source, target, draws = _trainee(tiny_store), _trainee(tiny_store), _draws(tiny_store)
    assert len({draws.draw(index) is None for index in range(20, 24)}) == 2
    for index in range(22):
        source.step(index)
    target.restore({name: value.clone() for name, value in {**source.weights(), **optimizer_tensors(source.optimizer)}.items()})
    torch.manual_seed(99)
    for index in range(22, 30):
        assert source.step(index) == target.step(index)
    assert all(torch.equal(value, target.weights()[name]) for name, value in source.weights().items())
