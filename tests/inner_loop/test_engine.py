from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import Engine, Parameters, TaskLoss, TaskNetwork, choose_engine, fast, higher
from fewshot_nsl.precision import Precision
from fewshot_nsl.similarity import StaticSimilarityConv2d

TASKS = 3
Task = tuple[TaskLoss, TaskLoss]
"""Inner and outer loss."""


def _network_loss(random: torch.Generator) -> TaskLoss:
    """Cross entropy of each task's own images under a convolution's own M and a classifier."""
    torch.manual_seed(0)
    layer = StaticSimilarityConv2d(2, 3, 2, dtype=torch.float64)
    images = torch.randn(TASKS, 4, 2, 4, 4, generator=random, dtype=torch.float64)
    labels = torch.randint(0, 2, (TASKS, 4), generator=random)

    def loss(parameters: Parameters) -> Tensor:
        losses = []
        for task in range(TASKS):
            hidden = torch.func.functional_call(layer, {"M": parameters["M"][task]}, (images[task],)).tanh().mean((2, 3))
            losses.append(functional.cross_entropy(hidden @ parameters["classifier"][task].T, labels[task]))
        return torch.stack(losses)

    return loss


@pytest.fixture(params=["higher", "fast"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return {"higher": higher, "fast": fast}[request.param]()


@pytest.fixture
def task() -> Task:
    random = torch.Generator().manual_seed(1)
    return _network_loss(random), _network_loss(random)


@pytest.fixture
def start() -> Parameters:
    random = torch.Generator().manual_seed(2)
    return {
        "M": torch.eye(4, dtype=torch.float64).flatten() + 0.1 * torch.randn(TASKS, 16, generator=random, dtype=torch.float64),
        "classifier": torch.randn(TASKS, 2, 3, generator=random, dtype=torch.float64),
    }


def _by_hand(loss: TaskLoss, parameters: Parameters, steps: int, lr: dict[str, float], *, second_order: bool = True) -> Parameters:
    values = dict(parameters)
    for _ in range(steps):
        gradients = torch.autograd.grad(loss(values).sum(), list(values.values()), create_graph=second_order)
        values = {name: value - lr[name] * g for (name, value), g in zip(values.items(), gradients, strict=True)}
    return values


def _wanting(parameters: Parameters) -> Parameters:
    return {name: value.clone().requires_grad_() for name, value in parameters.items()}


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("first_order", [False, True])
def test_equals_steps_taken_by_hand(engine: Engine, task: Task, start: Parameters, steps: int, *, first_order: bool) -> None:
    expected = _by_hand(task[0], _wanting(start), steps, dict.fromkeys(start, 0.5))
    adapted = engine.adapt(task[0], start, steps=steps, lr=0.5, first_order=first_order)
    assert list(adapted) == list(start)
    for name, value in adapted.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)
        assert steps == 0 or (value - start[name]).abs().max() > 1e-3


def test_each_name_has_its_step_size(engine: Engine, task: Task, start: Parameters) -> None:
    lr = {"classifier": 0.7, "M": 0.0}
    adapted = engine.adapt(task[0], start, steps=3, lr=lr)
    assert torch.equal(adapted["M"], start["M"])
    torch.testing.assert_close(adapted["classifier"], _by_hand(task[0], _wanting(start), 3, lr)["classifier"], rtol=1e-12, atol=1e-12)


def test_leaves_what_it_is_given(engine: Engine, task: Task, start: Parameters) -> None:
    given = _wanting(start)
    engine.adapt(task[0], given, steps=3, lr=0.5)
    for name, value in given.items():
        assert torch.equal(value, start[name])
        assert value.grad is None
    assert not any(value.requires_grad for value in start.values())


def test_is_the_same_each_time(engine: Engine, task: Task, start: Parameters) -> None:
    first, second = (engine.adapt(task[0], start, steps=3, lr=0.5) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in start)


def test_works_where_the_caller_wants_no_gradient(engine: Engine, task: Task, start: Parameters) -> None:
    expected = engine.adapt(task[0], start, steps=2, lr=0.5)
    with torch.no_grad():
        adapted = engine.adapt(task[0], start, steps=2, lr=0.5)
    assert all(torch.equal(adapted[name], expected[name]) for name in start)


@pytest.mark.parametrize("first_order", [False, True])
def test_tasks_do_not_see_each_other(engine: Engine, task: Task, start: Parameters, *, first_order: bool) -> None:
    loss, gradients = engine.meta_gradient(*task, start, steps=3, lr=0.5, first_order=first_order)
    changed = {name: value.clone() for name, value in start.items()}
    for value in changed.values():
        value[1] += 1
    changed_loss, changed_gradients = engine.meta_gradient(*task, changed, steps=3, lr=0.5, first_order=first_order)
    for before, after in ((loss, changed_loss), *((gradients[name], changed_gradients[name]) for name in start)):
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.allclose(before[1], after[1])


def _difference_quotient(f: Callable[[Parameters], Tensor], at: Parameters, name: str, index: int, width: float = 1e-5) -> Tensor:
    """Central, in entry `index` of every task's copy at once: `[tasks]`."""
    values = []
    for sign in (1, -1):
        moved = {key: value.clone() for key, value in at.items()}
        moved[name].flatten(1)[:, index] += sign * width
        values.append(f(moved))
    return (values[0] - values[1]) / (2 * width)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_meta_gradient_equals_finite_differences(engine: Engine, task: Task, start: Parameters, steps: int) -> None:
    lr = {"M": 0.5, "classifier": 0.8}

    def outer(parameters: Parameters) -> Tensor:
        return task[1](_by_hand(task[0], _wanting(parameters), steps, lr)).detach()

    loss, gradients = engine.meta_gradient(*task, start, steps=steps, lr=lr)
    torch.testing.assert_close(loss, outer(start), rtol=1e-12, atol=1e-12)
    for name, gradient in gradients.items():
        assert gradient.shape == start[name].shape
        for index in range(gradient[0].numel()):
            quotient = _difference_quotient(outer, start, name, index)
            torch.testing.assert_close(gradient.flatten(1)[:, index], quotient, rtol=1e-6, atol=1e-9)


def test_first_order_takes_the_outer_gradient_where_the_steps_end(engine: Engine, task: Task, start: Parameters) -> None:
    end = _wanting({name: value.detach() for name, value in engine.adapt(task[0], start, steps=3, lr=0.5).items()})
    expected = dict(zip(end, torch.autograd.grad(task[1](end).sum(), list(end.values())), strict=True))
    loss, gradients = engine.meta_gradient(*task, start, steps=3, lr=0.5, first_order=True)
    torch.testing.assert_close(loss, task[1](end).detach(), rtol=1e-12, atol=1e-12)
    exact = engine.meta_gradient(*task, start, steps=3, lr=0.5)[1]
    for name in start:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-10, atol=1e-12)
        assert (gradients[name] - exact[name]).abs().max() > 1e-4


def test_copies_of_one_tensor_collect_the_gradients_of_all_tasks(engine: Engine, task: Task, start: Parameters) -> None:
    shared = {name: value[0].clone().requires_grad_() for name, value in start.items()}
    adapted = engine.adapt(task[0], {name: value.expand(TASKS, *value.shape) for name, value in shared.items()}, steps=2, lr=0.5)
    collected = torch.autograd.grad(task[1](adapted).sum(), list(shared.values()))
    copies = {name: value.detach().expand(TASKS, *value.shape).clone() for name, value in shared.items()}
    gradients = engine.meta_gradient(*task, copies, steps=2, lr=0.5)[1]
    for name, gradient in zip(shared, collected, strict=True):
        torch.testing.assert_close(gradient, gradients[name].sum(0), rtol=1e-10, atol=1e-12)


def test_a_loss_may_close_over_a_network_that_stays(engine: Engine, start: Parameters) -> None:
    layer = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    before = layer.weight.detach().clone()

    def loss(parameters: Parameters) -> Tensor:
        return (parameters["classifier"] - layer.weight).square().sum((1, 2))

    adapted = engine.adapt(loss, {"classifier": start["classifier"]}, steps=1, lr=0.5)
    torch.testing.assert_close(adapted["classifier"], before.expand(TASKS, 2, 3))  # one step of 1/2 ends at the minimum
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None


def test_half_precision_is_the_reference_engines_and_no_others() -> None:
    half = Precision("bfloat16", torch.device("cpu"))
    assert choose_engine("auto", half=True).name == "higher"
    with pytest.raises(ConfigurationError, match="engine fast computes in float32"):
        choose_engine("fast", half=True)
    with pytest.raises(ConfigurationError, match="engine plain computes in float32, not in bfloat16"):
        choose_engine("plain", half=True).in_precision(half)
    engine = fast()
    assert engine.in_precision(Precision("float32", half.device)) is engine


def test_networks_of_half_precision_give_float32_and_rounded_second_derivatives() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(StaticSimilarityConv2d(2, 3, 3), nn.Tanh(), nn.Flatten())
    images, start = torch.randn(TASKS, 4, 2, 5, 5), {"0.M": torch.eye(9).flatten().expand(TASKS, 81)}
    results = []
    for name in ("float32", "bfloat16"):
        engine = higher().in_precision(Precision(name, torch.device("cpu")))
        tasks = engine.network(network)
        prepared = tasks.prepare(images)

        def loss(parameters: Parameters, tasks: TaskNetwork = tasks, prepared: Tensor = prepared) -> Tensor:
            features = tasks.features(parameters, prepared)
            assert features.dtype == torch.float32
            return features.square().mean((1, 2))

        results.append(engine.meta_gradient(loss, loss, start, steps=2, lr=0.5))
    (exact, of_exact), (rounded, of_rounded) = results
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.0)
    difference = torch.linalg.norm(of_rounded["0.M"] - of_exact["0.M"])
    assert difference < 0.03 * torch.linalg.norm(of_exact["0.M"])
