"""Meta-learned static NSN: MAML in which only the similarity and the classifier move (Liu et al. 2019, section 7.2)."""

from typing import cast

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.similarity import convert, similarity_parameters
from fewshot_nsl.strategies.meta_pretrained import MetaPretrained


class MetaStatic(MetaPretrained):
    """The initial M and classifier are learned in an outer loop, through an inner loop on them (Finn et al. 2017, algorithm 2).

    Filters, BN's affine part and BN's statistics stay as pretrained.

    Args:
        backbone: pretrained, of plain convolutions.
        n_way: ways of the learned classifier.
        structure: of M.
        steps: inner steps in training; 5 in MAML.
        test_steps: inner steps in `fit`; 10 in MAML.
        lr: inner step size of M; 0.01 in MAML.
        lr_classifier: inner step size of the classifier; large, since features of length 1 give it small gradients.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    name = "meta-static"

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        structure: str = "unconstrained",
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 10.0,
        first_order: bool = False,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(
            cast(Backbone, convert(backbone, "static", structure=structure)),
            n_way=n_way,
            steps=steps,
            test_steps=test_steps,
            lr_classifier=lr_classifier,
            first_order=first_order,
            engine=engine,
        )
        self.let_move(similarity_parameters(self.backbone), lr)
