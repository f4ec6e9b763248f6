from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError, TrainingError
from fewshot_nsl.similarity import added_parameters, convert
from fewshot_nsl.training import train_from_pretrained


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def _batches() -> Iterator[tuple[Tensor, Tensor]]:
    """Three classes told apart by the direction of their stripes."""
    random = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    stripes = torch.stack([(rows % 2).float(), (columns % 2).float(), ((rows + columns) % 2).float()])
    while True:
        targets = torch.randint(0, 3, (32,), generator=random)
        yield stripes[targets][:, None] + 0.3 * torch.randn(32, 2, 8, 8, generator=random), targets


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(("kind", "threshold"), [("static", None), ("static", 0.5), ("dynamic", None)])
def test_the_first_stage_moves_what_similarity_added_and_nothing_else(plain: nn.Module, kind: str, threshold: float | None) -> None:
    model = convert(plain, kind, shape_threshold=threshold)
    before = _values(model)
    losses = train_from_pretrained(model, _batches(), module_steps=5)
    assert len(losses) == 5
    assert _moved(before, _values(model)) == set(added_parameters(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_second_stage_moves_everything(plain: nn.Module) -> None:
    model = convert(plain, "static")
    before = _values(model)
    losses = train_from_pretrained(model, _batches(), module_steps=2, whole_steps=3)
    assert len(losses) == 5
    assert _moved(before, _values(model)) == set(before)


def test_the_first_loss_is_that_of_the_pretrained_network(plain: nn.Module) -> None:
    images, targets = next(_batches())
    losses = train_from_pretrained(convert(plain, "dynamic"), _batches(), module_steps=1)
    assert losses[0] == pytest.approx(functional.cross_entropy(plain.train()(images), targets).item(), rel=1e-4)


def test_both_stages_lower_the_loss(plain: nn.Module) -> None:
    losses = train_from_pretrained(convert(plain, "static"), _batches(), module_steps=60, whole_steps=60, whole_lr=0.1)
    start, middle, end = (sum(losses[i : i + 5]) / 5 for i in (0, 55, 115))
    assert middle < start - 0.01
    assert end < middle - 0.1


def test_what_the_caller_froze_stays_frozen(plain: nn.Module) -> None:
    model = convert(plain, "static")
    model.get_submodule("5").requires_grad_(False)
    before = _values(model)
    train_from_pretrained(model, _batches(), module_steps=1, whole_steps=2)
    assert _moved(before, _values(model)).isdisjoint({"5.weight", "5.bias"})
    assert not model.get_parameter("5.weight").requires_grad


def test_refusals(plain: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match="Sequential has no similarity to train; make some first: convert"):
        train_from_pretrained(plain, _batches(), module_steps=1)
    with pytest.raises(ConfigurationError, match=r"3 batches to train on: expected 5; repeat them: itertools\.cycle"):
        train_from_pretrained(convert(plain, "static"), islice(_batches(), 3), module_steps=2, whole_steps=3)


def test_a_loss_that_is_not_finite_stops_the_training_before_the_weights_are_lost(plain: nn.Module) -> None:
    model = convert(plain, "static")
    images, targets = next(_batches())
    poisoned = [(images, targets), (images * float("nan"), targets)]
    with pytest.raises(TrainingError, match=r"the loss is nan at step 2; try a lower learning rate than 0\.1"):
        train_from_pretrained(model, poisoned, module_steps=2)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())
