import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler
from fewshot_nsl.evaluate import evaluate
from fewshot_nsl.strategies import MetaStatic
from fewshot_nsl.training.episodic import Episodic
from fewshot_nsl.training.loop import optimizer_tensors

CPU = torch.device("cpu")


SIZES: dict[str, Any] = {"n_way": 3, "n_shot": 1, "n_query": 2, "iterations": 8, "validation_episodes": 7}


def _strategy(store: ImageStore) -> MetaStatic:
    torch.manual_seed(0)
    return MetaStatic(CNN4(16, 3, width=4, mean=store.mean, std=store.std), n_way=3, steps=2, test_steps=3)


def _trainee(store: ImageStore, seed: int = 2) -> Episodic:
    return Episodic(_strategy(store), store, CPU, **SIZES, meta_batch=2, lr=0.01, seed=seed)


def test_a_step_is_one_of_adam_on_the_mean_loss_of_its_own_episodes(tiny_store: ImageStore) -> None:
    trainee, strategy = _trainee(tiny_store), _strategy(tiny_store)
    optimizer = torch.optim.Adam([parameter for parameter in strategy.parameters() if parameter.requires_grad], 0.01)
    sampler = EpisodeSampler(tiny_store.split_labels("train"), 3, 1, 2, seed=2)
    for index in range(3):
        loss = strategy.loss(EpisodeDataset(tiny_store, sampler, 6, 2)[index]).mean()
        optimizer.zero_grad()
        loss.backward()
        rate = 0.01 * (1 + math.cos(math.pi * index / 8)) / 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert trainee.step(index) == {"loss": loss.item(), "lr": pytest.approx(rate)}
    for name, value in trainee.weights().items():
        torch.testing.assert_close(value, strategy.state_dict()[name])


def test_images_of_training_are_changed_and_a_step_has_the_same_ones_again(tiny_store: ImageStore) -> None:
    changed, other = (
        Episodic(_strategy(tiny_store), tiny_store, CPU, **SIZES, meta_batch=2, lr=0.01, seed=2, augmentations=augmentations)
        for augmentations in (["crop", "flip"], ["flip"])
    )
    plain, batch, flipped = _trainee(tiny_store).batch(3), changed.batch(3), other.batch(3)
    for before, after in ((plain.support, flipped.support), (plain.query, flipped.query)):
        same = (before == after).flatten(2).all(-1)
        turned = (before == after.flip(-1)).flatten(2).all(-1)
        assert (same ^ turned).all()  # each image is as it was, or its mirror image
        assert same.any()
        assert turned.any()
    assert not torch.equal(batch.query, flipped.query)
    assert torch.equal(batch.support_labels, plain.support_labels)
    changed.step(0)
    assert torch.equal(changed.batch(3).support, batch.support)
    assert torch.equal(changed.batch(3).query, batch.query)


def test_validation_images_are_left_alone(tiny_store: ImageStore) -> None:
    changed = Episodic(_strategy(tiny_store), tiny_store, CPU, **SIZES, meta_batch=2, lr=0.01, seed=2, augmentations=["crop", "flip"])
    assert changed.validate() == _trainee(tiny_store).validate()


def test_the_rate_falls_along_a_cosine_to_nothing(tiny_store: ImageStore) -> None:
    trainee = _trainee(tiny_store)
    rates = [trainee.step(index)["lr"] for index in (0, 4, 8)]
    assert rates == pytest.approx([0.01, 0.005, 0])
    assert trainee.optimizer.param_groups[0]["lr"] == rates[-1]


def test_validation_is_the_evaluator_on_episodes_of_val(tiny_store: ImageStore) -> None:
    trainee = _trainee(tiny_store)
    trainee.step(0)
    sampler = EpisodeSampler(tiny_store.split_labels("val"), 3, 1, 2, seed=2)
    assert trainee.validate() == trainee.validate() == evaluate(trainee.strategy, tiny_store, sampler, 7, CPU).mean()


def test_state_goes_on_from_where_it_was_taken(tiny_store: ImageStore) -> None:
    source, target = _trainee(tiny_store), _trainee(tiny_store)
    for index in range(2):
        source.step(index)
    target.restore({name: value.clone() for name, value in {**source.weights(), **optimizer_tensors(source.optimizer)}.items()})
    assert source.step(2) == target.step(2)
    assert all(torch.equal(value, target.weights()[name]) for name, value in source.weights().items())


@pytest.mark.parametrize("seed", [3, 4])
def test_another_seed_is_other_episodes(tiny_store: ImageStore, seed: int) -> None:
    first, second = _trainee(tiny_store), _trainee(tiny_store, seed)
    first.step(0)
    second.step(0)
    assert not torch.equal(first.weights()["classifier"], second.weights()["classifier"])


@pytest.mark.parametrize("tasks_at_once", [1, 2, 3, 100])
def test_parts_of_a_meta_batch_add_up_to_the_whole(tiny_store: ImageStore, monkeypatch: pytest.MonkeyPatch, tasks_at_once: int) -> None:
    whole, parts = (
        Episodic(_strategy(tiny_store).double(), tiny_store, CPU, **SIZES, meta_batch=5, lr=0.01, seed=2, tasks_at_once=at_once)
        for at_once in (None, tasks_at_once)
    )
    together = []
    loss = parts.strategy.loss

    def watched(batch: EpisodeBatch) -> Tensor:
        together.append(len(batch.support))
        return loss(batch)

    monkeypatch.setattr(parts.strategy, "loss", watched)
    for index in range(3):
        assert parts.step(index) == pytest.approx(whole.step(index), rel=1e-12)
    for name, value in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], value, rtol=1e-9, atol=1e-12)
    assert max(together) <= tasks_at_once
    assert sum(together) == 3 * 5
