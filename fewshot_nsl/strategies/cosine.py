"""A cosine classifier retrained on the support set (Chen et al. 2019, "Baseline++" at test)."""

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.precision import full_products
from fewshot_nsl.strategies.frozen import UnitFeatures
from fewshot_nsl.strategies.strategy import Classifier


class CosineClassifier(UnitFeatures):
    """Logits are `scale * cos(w, x)`, one vector w a way; w starts at the class's mean, of length 1, and descends the mean cross entropy.

    Chen et al. start at random and take small batches by SGD with momentum. Here every step is of all supports, so that the answer depends
    on no order and no seed.

    Args:
        backbone: pretrained; nothing of it moves.
        scale: of the cosines; that of their code for so few ways.
        steps: of gradient descent.
        lr: step size.
    """

    def __init__(self, backbone: Backbone, *, scale: float = 2.0, steps: int = 100, lr: float = 1.0) -> None:
        super().__init__(backbone)
        self.scale, self.steps, self.lr = scale, steps, lr

    @full_products()
    def fit(self, support: Float[Tensor, "tasks n_support d"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Fit the classifier of each task."""
        targets = functional.one_hot(support_labels).to(support.dtype)
        weights = functional.normalize(targets.mT @ support, dim=-1)
        for _ in range(self.steps):
            lengths = weights.norm(dim=-1, keepdim=True)
            ways = weights / lengths
            errors = (self.scale * support @ ways.mT).softmax(-1) - targets
            slope = self.scale / support.shape[1] * errors.mT @ support
            # What points along w would change its length, and no cosine.
            weights = weights - self.lr * (slope - (slope * ways).sum(-1, keepdim=True) * ways) / lengths
        ways = functional.normalize(weights, dim=-1)
        return lambda query: self.scale * query @ ways.mT
