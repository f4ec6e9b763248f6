"""R2-D2: ridge regression as the classifier, differentiated in closed form (Bertinetto et al. 2019)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.precision import full_products
from fewshot_nsl.strategies.metric_learner import MetricLearner
from fewshot_nsl.strategies.strategy import Classifier


class R2D2(MetricLearner):
    """Weights w that minimise `|x w - y|^2 + penalty * |w|^2` on the supports; logits are `scale * x w + shift` (section 3.2, equation 4).

    The solution is taken in the span of the supports, `w = x' (x x' + penalty)^-1 y`, an `n_support` square system. Penalty and scale are
    learned as their logarithms.

    Args:
        backbone: where training starts.
        penalty: where the penalty starts; for features of length 1.
        scale: where the scale starts.
    """

    name = "r2d2"

    def __init__(self, backbone: Backbone, *, penalty: float = 1.0, scale: float = 10.0) -> None:
        super().__init__(backbone)
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.shift = nn.Parameter(torch.tensor(0.0))

    @full_products()
    def compare(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """See `MetricLearner`."""
        support = functional.normalize(support, dim=-1)
        targets = functional.one_hot(support_labels).to(support.dtype)
        gram = support @ support.mT
        ridge = self.log_penalty.exp() * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        weights = support.mT @ torch.linalg.solve(gram + ridge, targets)
        return lambda query: self.log_scale.exp() * (functional.normalize(query, dim=-1) @ weights) + self.shift
