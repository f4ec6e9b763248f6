"""Matching networks: attention over the supports (Vinyals et al. 2016)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.strategy import Classifier

SMALLEST = 1e-12
"""Of a probability, before its logarithm is taken."""


class MatchingNet(MetricLearner):
    """A way's probability is the attention that its supports get: softmax of the cosines to all supports (equations 1 and 2).

    Cosines are multiplied by a scale that is learned, as its logarithm. As they are, in [-1, 1], no attention could be
    above 7.4 times another's, and little is learned; Chen et al. (2019) multiply by 100.

    Logits are logarithms of these probabilities, so that their cross entropy is the paper's loss. With full-context embeddings supports are
    read by a bidirectional LSTM, and a query by an LSTM with attention to them (section 2.1.2 and appendix A); the supports are read in
    the order of their first feature, so that the order in which they come means nothing.

    Args:
        backbone: where training starts.
        full_context: whether embeddings see the whole support set.
        reads: times a query's LSTM looks at the supports, with full context.
        scale: where the scale starts.
    """

    name = "matching-net"

    def __init__(self, backbone: Backbone, *, full_context: bool = False, reads: int = 5, scale: float = 10.0) -> None:
        super().__init__(backbone)
        self.reads = reads
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        size = backbone.features
        self.of_support = nn.LSTM(size, size, batch_first=True, bidirectional=True) if full_context else None
        self.of_query = nn.LSTMCell(size, size) if full_context else None

    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """See `MetricLearner`."""
        members = functional.one_hot(support_labels).to(support.dtype)
        if self.of_support is not None:
            support, members = self._read_supports(support, members)
        keys = functional.normalize(support, dim=-1)

        def classify(query: Float[Tensor, "tasks n_query d"]) -> Float[Tensor, "tasks n_query way"]:
            if self.of_query is not None:
                query = self._read_query(self.of_query, query, support)
            attention = (self.log_scale.exp() * functional.normalize(query, dim=-1) @ keys.mT).softmax(-1)
            return (attention @ members).clamp(min=SMALLEST).log()

        return classify

    def _read_supports(self, support: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings in context, and memberships in the same order."""
        assert self.of_support is not None
        order = support[..., 0].argsort(1)[..., None]
        support, members = (torch.take_along_dim(tensor, order, dim=1) for tensor in (support, members))
        forth, back = self.of_support(support)[0].chunk(2, dim=-1)
        return support + forth + back, members

    def _read_query(self, cell: nn.LSTMCell, query: Tensor, support: Tensor) -> Tensor:
        """Equations 3 to 6 of appendix A: the hidden state is the query plus what the cell adds, after each look at the supports."""
        flat = query.flatten(0, 1)
        hidden, state = flat, torch.zeros_like(flat)
        for _ in range(self.reads):
            attention = (hidden.view_as(query) @ support.mT).softmax(-1)
            read = (attention @ support).flatten(0, 1)
            added, state = cell(flat, (hidden + read, state))
            hidden = added + flat
        return hidden.view_as(query)
