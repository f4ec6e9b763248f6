"""Recurrent cells whose maps to the gates have a similarity (Liu et al. 2019, section 1: "fully connected and recurrent networks")."""

import copy
from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.similarity.linear import StaticSimilarityLinear

LinearMaker = Callable[[int, int, bool], nn.Linear]
"""Makes a map from its sizes and whether it has a bias: `nn.Linear`, a similarity layer, or one with `functools.partial` options."""


class SimilarityCell(nn.Module):
    """What both cells have: a map of the input and one of the last state, each to all gates, under a similarity of its own.

    Weights start as those of torch's cells. A static map is folded by its own `fold()`.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool, gates: int, linear: LinearMaker) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.input_map = linear(input_size, gates * hidden_size, bias)
        self.hidden_map = linear(hidden_size, gates * hidden_size, bias)
        bound = hidden_size**-0.5
        for layer in (self.input_map, self.hidden_map):
            for value in (layer.weight, layer.bias):
                if value is not None:
                    nn.init.uniform_(value, -bound, bound)

    def start(self, input: Float[Tensor, "*batch d"], state: Float[Tensor, "..."] | None) -> Float[Tensor, "*batch h"]:
        """The state of the step before; zeros where there was none.

        Raises:
            ConfigurationError: the state has another shape.
        """
        shape = (*input.shape[:-1], self.hidden_size)
        if state is None:
            return input.new_zeros(shape)
        if state.shape != shape:
            raise ConfigurationError(f"state has shape {list(state.shape)}: expected {list(shape)}")
        return state


class SimilarityLSTMCell(SimilarityCell):
    """One step of an LSTM, with `nn.LSTMCell`'s arguments, gate order (input, forget, cell, output) and results at the identity."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, linear: LinearMaker = StaticSimilarityLinear) -> None:
        super().__init__(input_size, hidden_size, bias, 4, linear)

    def forward(
        self, input: Float[Tensor, "*batch d"], hx: tuple[Float[Tensor, "..."], Float[Tensor, "..."]] | None = None
    ) -> tuple[Float[Tensor, "*batch h"], Float[Tensor, "*batch h"]]:
        """The next hidden and cell state.

        Args:
            input: vectors, with any leading axes.
            hx: hidden and cell state `[..., h]` of the step before, zeros by default.

        Raises:
            ConfigurationError: a state has another shape.
        """
        hidden, cell = hx or (None, None)
        hidden, cell = self.start(input, hidden), self.start(input, cell)
        enters, stays, new, leaves = (self.input_map(input) + self.hidden_map(hidden)).chunk(4, -1)
        cell = stays.sigmoid() * cell + enters.sigmoid() * new.tanh()
        return leaves.sigmoid() * cell.tanh(), cell


class SimilarityGRUCell(SimilarityCell):
    """One step of a GRU, with `nn.GRUCell`'s arguments, gate order (reset, update, new) and results at the identity."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, linear: LinearMaker = StaticSimilarityLinear) -> None:
        super().__init__(input_size, hidden_size, bias, 3, linear)

    def forward(self, input: Float[Tensor, "*batch d"], hx: Float[Tensor, "..."] | None = None) -> Float[Tensor, "*batch h"]:
        """The next hidden state.

        Args:
            input: vectors, with any leading axes.
            hx: hidden state `[..., h]` of the step before, zeros by default.

        Raises:
            ConfigurationError: the state has another shape.
        """
        hidden = self.start(input, hx)
        seen, kept = self.input_map(input).chunk(3, -1), self.hidden_map(hidden).chunk(3, -1)
        reset, update = (seen[0] + kept[0]).sigmoid(), (seen[1] + kept[1]).sigmoid()
        new = (seen[2] + reset * kept[2]).tanh()
        return (hidden - new) * update + new


CELLS: dict[type[nn.RNNCellBase], Callable[..., SimilarityLSTMCell | SimilarityGRUCell]] = {
    nn.LSTMCell: SimilarityLSTMCell,
    nn.GRUCell: SimilarityGRUCell,
}


def similarity_cell(cell: nn.RNNCellBase, *, linear: LinearMaker = StaticSimilarityLinear) -> SimilarityLSTMCell | SimilarityGRUCell:
    """A similarity cell with a copy of this cell's weights; it computes what the cell computes, since every M starts as the identity.

    Args:
        cell: an `nn.LSTMCell` or `nn.GRUCell`; it is left as it is.
        linear: makes both maps.

    Raises:
        ConfigurationError: another kind of cell.
    """
    if type(cell) not in CELLS:
        raise ConfigurationError(f"{type(cell).__name__}: expected one of {', '.join(kind.__name__ for kind in CELLS)}")
    similar = CELLS[type(cell)](cell.input_size, cell.hidden_size, cell.bias, linear=linear).to(cell.weight_ih)
    own = copy.deepcopy(cell)
    similar.input_map.weight, similar.input_map.bias = own.weight_ih, own.bias_ih
    similar.hidden_map.weight, similar.hidden_map.bias = own.weight_hh, own.bias_hh
    return similar.train(cell.training)
