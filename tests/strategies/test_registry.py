import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, SimilarityChoice
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES, MetaLearner, RidgeClassifier, Strategy, check_settings, get_meta_strategy
from fewshot_nsl.strategies.tasks import BIAS, CLASSIFIER

Predict = Callable[[Strategy, Tensor, Tensor, Tensor], Tensor]
Build = Callable[[str], Strategy]

MAML_INDUCTIVE = "maml, inductive"
EVERY = pytest.mark.parametrize("name", [*STRATEGIES, MAML_INDUCTIVE])


@pytest.fixture
def build(build: Callable[..., Strategy]) -> Build:
    """A strategy by its name in `STRATEGIES`, or MAML in its other setting."""
    return lambda name: build("maml", transductive=False) if name == MAML_INDUCTIVE else build(name)


@EVERY
def test_every_strategy_says_whether_queries_see_each_other(build: Build, name: str) -> None:
    assert build(name).transductive is (name == "maml")


@EVERY
def test_every_strategy_gives_finite_logits_for_every_query_and_way(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    logits = predict(build(name), batch.support, batch.support_labels, batch.query)
    assert logits.shape == (2, 12, 3)
    assert logits.isfinite().all()
    assert not logits.requires_grad
    assert (logits.amax(-1) > logits.amin(-1)).all()


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name != "relation-net"])  # which has yet to learn what relates
def test_every_strategy_tells_colours_apart(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    predicted = predict(build(name), batch.support, batch.support_labels, batch.query).argmax(-1)
    assert (predicted == batch.query_labels).double().mean() > 0.6  # chance is a third


@EVERY
def test_queries_may_come_one_by_one_where_a_strategy_is_not_transductive(
    build: Build, predict: Predict, batch: EpisodeBatch, name: str
) -> None:
    strategy = build(name)
    together = predict(strategy, batch.support, batch.support_labels, batch.query)
    single = [predict(strategy, batch.support, batch.support_labels, batch.query[:, i : i + 1]) for i in range(12)]
    if strategy.transductive:
        assert not torch.allclose(torch.cat(single, dim=1), together, rtol=1e-2, atol=1e-2)
    else:
        torch.testing.assert_close(torch.cat(single, dim=1), together)


@EVERY
def test_the_order_of_queries_means_nothing(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    strategy, order = build(name), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    expected = predict(strategy, batch.support, batch.support_labels, batch.query)[:, order]
    torch.testing.assert_close(predict(strategy, batch.support, batch.support_labels, batch.query[:, order]), expected)


@EVERY
def test_the_order_of_supports_means_nothing(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    strategy, order = build(name), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    expected = predict(strategy, batch.support, batch.support_labels, batch.query)
    found = predict(strategy, batch.support[:, order], batch.support_labels[:, order], batch.query)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@EVERY
def test_renaming_the_ways_renames_the_answers(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    strategy, renamed = build(name), torch.tensor([2, 0, 1])
    if isinstance(strategy, MetaLearner):  # a learned classifier may prefer a way; one of zeros does not
        for value in (value for key, value in strategy.moving.items() if key in (CLASSIFIER, BIAS)):
            nn.init.zeros_(value)
    expected = predict(strategy, batch.support, batch.support_labels, batch.query)
    found = predict(strategy, batch.support, renamed[batch.support_labels], batch.query)
    torch.testing.assert_close(found[..., renamed], expected, rtol=1e-6, atol=1e-6)


@EVERY
def test_tasks_do_not_see_each_other(build: Build, predict: Predict, batch: EpisodeBatch, name: str) -> None:
    strategy = build(name)
    together = predict(strategy, batch.support, batch.support_labels, batch.query)
    for task in range(2):
        alone = predict(strategy, batch.support[task : task + 1], batch.support_labels[task : task + 1], batch.query[task : task + 1])
        # A regression may stop earlier where no other task has further to go.
        little = 0.01 * (together.max() - together.min())
        assert (alone[0] - together[task]).abs().max() < little
        assert (together[1 - task] - together[task]).abs().max() > little


@EVERY
def test_fitting_moves_nothing_of_the_network(
    build: Build, predict: Predict, backbone: Backbone, dynamic_backbone: Backbone, batch: EpisodeBatch, name: str
) -> None:
    strategy = build(name)
    networks = [backbone, dynamic_backbone, *(value for value in vars(strategy).values() if isinstance(value, nn.Module))]
    networks += [strategy] if isinstance(strategy, nn.Module) else []
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in networks]
    predict(strategy, batch.support, batch.support_labels, batch.query)
    for network, state in zip(networks, before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())


def test_strategies_trained_on_episodes_are_evaluated_from_a_checkpoint_of_their_own() -> None:
    for name, entry in META_STRATEGIES.items():
        assert STRATEGIES[name].network == name
        assert STRATEGIES[name].build is entry.build
    assert {entry.network for name, entry in STRATEGIES.items() if name not in META_STRATEGIES} == {"plain", "dynamic"}


def test_titles_tell_strategies_apart() -> None:
    assert len({entry.title for entry in STRATEGIES.values()}) == len(STRATEGIES)


def test_what_a_strategy_is_trained_from_is_said() -> None:
    pretrained = {name: get_meta_strategy(name).pretrained for name in META_STRATEGIES if not get_meta_strategy(name).from_scratch}
    assert pretrained == {"leo": "plain", "meta-static": "plain", "meta-dynamic": "dynamic", "meta-classifier": "plain"}
    for entry in META_STRATEGIES.values():
        assert entry.from_scratch is (entry.pretrained is None) is issubclass(entry.config, SimilarityChoice)


@pytest.mark.parametrize("name", ["retrained", "magic"])
def test_what_is_not_trained_on_episodes_is_refused(name: str) -> None:
    with pytest.raises(
        ConfigurationError, match=f"strategy '{name}' is not trained on episodes: expected one of {', '.join(META_STRATEGIES)}"
    ):
        get_meta_strategy(name)


def test_settings_are_what_decides_the_answer() -> None:
    assert check_settings("ridge", {}) == {"penalty": inspect.signature(RidgeClassifier).parameters["penalty"].default}
    assert check_settings("ridge", {"penalty": 3})["penalty"] == 3.0
    assert check_settings("nearest-mean", {}) == {}
    settings = check_settings("static", {"steps": 7})
    assert settings["steps"] == 7
    assert "engine" not in settings
    assert "backbone" not in settings


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ridge", {"strength": 1}, "^strategy ridge has no setting 'strength': expected some of penalty; leave it out$"),
        ("nearest-mean", {"engine": None}, "^strategy nearest-mean has no setting 'engine': expected none; leave it out$"),
        ("ridge", {"penalty": "much"}, "^penalty of settings: .* number.*, got 'much'$"),
        ("magic", {}, "^strategy 'magic' is unknown: expected one of nearest-mean, "),
    ],
)
def test_settings_that_a_strategy_has_not_are_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_settings(name, values)
