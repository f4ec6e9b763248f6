"""A meta-learned classifier on a frozen backbone: ANIL, the control of meta-learned static NSN (Raghu et al. 2020)."""

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.inner_loop import Engine, FrozenNetwork, TaskNetwork
from fewshot_nsl.strategies.meta_pretrained import MetaPretrained


class MetaClassifier(MetaPretrained):
    """As `MetaStatic` without M: only the classifier moves, in the inner loop as in ANIL, and here in the outer loop too.

    Images are therefore encoded once, however many steps are taken on them.

    Args:
        backbone: pretrained; left as it is.
        n_way: ways of the learned classifier.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        lr: inner step size of the classifier; that of `MetaStatic`.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    name = "meta-classifier"

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 10.0,
        first_order: bool = False,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(
            backbone, n_way=n_way, steps=steps, test_steps=test_steps, lr_classifier=lr, first_order=first_order, engine=engine
        )

    def task_network(self, n_support: int) -> TaskNetwork:
        """The backbone, encoding each image once."""
        return FrozenNetwork(super().task_network(n_support))
