import json

import pytest
import torch

from fewshot_nsl.bench import PEERS, Comparison, MetaWork, compare, made_up_batch, our_learner, our_step, timed_strategies
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import fast, higher

CPU = torch.device("cpu")
WORK = MetaWork(image_size=16, tasks=2, steps=1, n_way=2, n_shot=1, n_query=1, width=4)


def test_everything_trained_on_episodes_is_timed_by_default() -> None:
    assert timed_strategies() == ["maml", "meta-static"]


def test_what_is_asked_for_is_timed_once() -> None:
    assert timed_strategies(["meta-static", "maml", "meta-static"]) == ["meta-static", "maml"]


def test_what_cannot_be_timed_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="strategy 'dynamic' cannot be timed: expected one of maml, meta-static"):
        timed_strategies(["maml", "dynamic"])


@pytest.mark.parametrize("strategy", ["maml", "meta-static"])
def test_a_step_leaves_the_gradient_of_its_loss_and_no_other(strategy: str) -> None:
    learner = our_learner(strategy, WORK, fast())
    before = [value.detach().clone() for value in learner.moving.values()]
    step = our_step(learner, made_up_batch(WORK, CPU))
    first = step()
    gradients = [value.grad.clone() for value in learner.moving.values() if value.grad is not None]
    assert len(gradients) == len(before)
    assert torch.equal(step(), first)
    for value, weight, gradient in zip(learner.moving.values(), before, gradients, strict=True):
        assert torch.equal(value, weight)
        assert value.grad is not None
        assert torch.equal(value.grad, gradient)
        assert gradient.abs().max() > 0


def test_all_engines_and_peers_are_timed_against_the_floor() -> None:
    comparison = compare("maml", WORK, [fast(), higher()], {"higher": PEERS["higher"]}, CPU, rounds=1, operations=1e9)
    assert list(comparison.ours) == ["plain", "higher"]
    assert list(comparison.peers) == ["higher"]
    # a product of the first layer is 110,592 operations, of the others together 48,384, for the supports and for the queries of a task
    operations = 2 * ((4 * 110_592 + 9 * 48_384) + (2 * 110_592 + 3 * 48_384))
    assert comparison.floor == pytest.approx(1e3 * operations / 1e9)
    assert all(time > 0 for time in (*comparison.ours.values(), *comparison.peers.values()))


def test_a_figure_for_every_engine_and_peer_and_for_the_floor() -> None:
    comparison = Comparison("maml", WORK, floor=1.0, ours={"fast": 2.0, "plain": 4.0}, peers={"higher": 8.0})
    lines = [json.loads(line) for line in comparison.figures(CPU)]
    assert {line["name"]: line["ratio"] for line in lines} == {
        "maml, 16x16, 2 tasks, 1 step, fast: time over floor": 2.0,
        "maml, 16x16, 2 tasks, 1 step, fast: time over higher": 0.25,
        "maml, 16x16, 2 tasks, 1 step, plain: time over floor": 4.0,
        "maml, 16x16, 2 tasks, 1 step, plain: time over higher": 0.5,
    }
