"""Meta-learned dynamic NSN: MAML in which only the predictors of the similarity and the classifier move.

Liu et al. (2019) meta-learn static similarity (section 7.2) and leave this step open.
"""

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.inner_loop import Engine
from fewshot_nsl.similarity import predictor_parameters
from fewshot_nsl.strategies.meta_pretrained import MetaPretrained


class MetaDynamic(MetaPretrained):
    """The initial predictors and classifier are learned in an outer loop, through an inner loop on them (Finn et al. 2017, algorithm 2).

    Filters and all BN of the backbone stay as pretrained. So do the statistics of the predictors' own BN; its scale and shift are
    parameters of the predictor, and move. A gain that is fixed stays.

    Args:
        backbone: pretrained, of dynamic similarity.
        n_way: ways of the learned classifier.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        lr: inner step size of the predictors.
        lr_classifier: inner step size of the classifier; that of `MetaStatic`.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators, which runs dynamic networks task after task.

    Raises:
        ConfigurationError: the backbone has no predictor that could move.
    """

    name = "meta-dynamic"

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 0.01,
        lr_classifier: float = 10.0,
        first_order: bool = False,
        engine: Engine | None = None,
    ) -> None:
        learned = [name for name, parameter in predictor_parameters(backbone).items() if parameter.requires_grad]
        if not learned:
            raise ConfigurationError(
                f"meta-dynamic moves predictors of dynamic similarity, {type(backbone).__name__} has none to move; "
                f"make some first: convert(backbone, 'dynamic')"
            )
        super().__init__(
            backbone,
            n_way=n_way,
            steps=steps,
            test_steps=test_steps,
            lr_classifier=lr_classifier,
            first_order=first_order,
            engine=engine,
        )
        self.let_move({name: self.backbone.get_parameter(name) for name in learned}, lr)
