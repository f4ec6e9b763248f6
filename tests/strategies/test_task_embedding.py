import math

import torch
from torch import Tensor, nn

from fewshot_nsl.strategies.task_embedding import ResidualNet, TaskEmbedding

D, CHANNELS = 5, [3, 2]


def _embedding() -> TaskEmbedding:
    torch.manual_seed(0)
    embedding = TaskEmbedding(D, CHANNELS).double()
    nn.init.normal_(embedding.gamma_0)
    nn.init.normal_(embedding.beta_0)
    return embedding


def _tasks(n: int = 4) -> Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def _linear(layer: nn.Linear, input: list[float]) -> list[float]:
    rows, biases = layer.weight.tolist(), layer.bias.tolist()
    return [b + sum(w * x for w, x in zip(row, input, strict=True)) for row, b in zip(rows, biases, strict=True)]


def _by_hand(net: ResidualNet, input: list[float]) -> list[float]:
    hidden = _linear(net.first, input)
    for layer in net.others:
        assert isinstance(layer, nn.Linear)
        active = [x / (1 + math.exp(-x)) for x in hidden]
        hidden = [x + y for x, y in zip(active, _linear(layer, active), strict=True)]
    return hidden


def test_modulations_are_those_of_the_formula() -> None:
    embedding, tasks = _embedding(), _tasks()
    for layer, (gamma, beta) in enumerate(embedding(tasks)):
        assert gamma.shape == beta.shape == (4, CHANNELS[layer])
        for task in range(4):
            for found, nets, factor in ((gamma, embedding.gamma, embedding.gamma_0), (beta, embedding.beta, embedding.beta_0)):
                net = nets[layer]
                assert isinstance(net, ResidualNet)
                assert len(net.others) == 2
                expected = torch.tensor(_by_hand(net, tasks[task].tolist()), dtype=torch.float64)
                torch.testing.assert_close(found[task], factor[layer] * expected)


def test_at_first_no_task_changes_anything_and_the_post_multipliers_can_be_learned() -> None:
    torch.manual_seed(0)
    embedding = TaskEmbedding(D, CHANNELS).double()
    modulations = embedding(_tasks())
    assert not any(value.any() for modulation in modulations for value in modulation)
    torch.stack([value.sum() for modulation in modulations for value in modulation]).sum().backward()
    for factor in (embedding.gamma_0, embedding.beta_0):
        assert factor.grad is not None
        assert (factor.grad != 0).all()


def test_the_penalty_is_half_the_sum_of_squares() -> None:
    embedding = _embedding()
    factors = [*embedding.gamma_0.tolist(), *embedding.beta_0.tolist()]
    assert len(factors) == 4
    torch.testing.assert_close(embedding.penalty().item(), sum(factor**2 for factor in factors) / 2)
