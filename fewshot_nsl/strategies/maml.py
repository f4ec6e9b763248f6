"""MAML: the initial weights are learned, and all of them move on a new task (Finn et al. 2017)."""

from jaxtyping import Float
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, with_batch_statistics
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.tasks import BIAS, CLASSIFIER, raw_features


class MAML(MetaLearner):
    """Every weight is learned in an outer loop, through an inner loop on all of them (Finn et al. 2017, algorithm 2).

    BN uses the statistics of the images at hand, in training and at test: those of a task's supports, or of its queries, which therefore
    see each other (transductive, as the published figures). The classifier is linear, with bias, on features of any length. Weights,
    number of steps and step sizes are those of the authors' Mini-ImageNet code, but for BN: there it has a shift only, which the inner
    loop leaves alone; here scale and shift move like everything else.

    Args:
        backbone: where to start, of plain or of similarity convolutions; left as it is. What asks for no gradient never moves.
        n_way: ways of the learned classifier, whose initial weights are `nn.Linear`'s.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        lr: inner step size of every weight.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    name = "maml"
    transductive = True

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 0.01,
        first_order: bool = False,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(n_way=n_way, steps=steps, test_steps=test_steps, first_order=first_order, engine=engine)
        self.backbone = with_batch_statistics(backbone)
        self.classifier = nn.Linear(backbone.features, n_way)
        own = {name: parameter for name, parameter in self.backbone.named_parameters() if parameter.requires_grad}
        weight, bias = self.classifier.parameters()
        self.moving = {**own, CLASSIFIER: weight, BIAS: bias}
        self.rates = dict.fromkeys(self.moving, lr)

    def logits(self, network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
        """Features times classifier, plus bias."""
        return raw_features(network, parameters, prepared) @ parameters[CLASSIFIER].mT + parameters[BIAS][:, None]
