"""Static NSN, finetuned: on a new task the similarity M and the classifier move, the filters stay (Liu et al. 2019, section 7.2)."""

from typing import cast

from torch import nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.finetuned import Finetuned


class StaticFinetuned(Finetuned):
    """As `Finetuned`, on a network of static similarity; M, the identity at first, moves, and what the steps add is what M adds.

    Args:
        backbone: pretrained, of plain convolutions.
        structure: of M.
        steps: of gradient descent.
        lr: step size of M.
        lr_classifier: step size of the classifier.
        penalty: of the regression, see `fit_logistic_regression`.
        engine: of the steps; by default the fast one on torch's operators.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        structure: str = "unconstrained",
        steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 0.1,
        penalty: float = 0.01,
        engine: Engine | None = None,
    ) -> None:
        network = cast(Backbone, convert(backbone, "static", structure=structure))
        super().__init__(network, steps=steps, lr=lr, lr_classifier=lr_classifier, penalty=penalty, engine=engine)

    def moving(self) -> dict[str, nn.Parameter]:
        """Every M."""
        return similarity_parameters(self.network)
