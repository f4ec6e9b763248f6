"""MAML: the initial weights are learned, and all of them move on a new task (Finn et al. 2017)."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, with_batch_statistics, with_first_statistics
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork
from fewshot_nsl.strategies.meta_learner import MetaLearner
from fewshot_nsl.strategies.tasks import BIAS, CLASSIFIER, raw_features


class MAML(MetaLearner):
    """Every weight is learned in an outer loop, through an inner loop on all of them (Finn et al. 2017, algorithm 2).

    BN uses the statistics of the images at hand, in training and at test. Steps are taken with those of a task's supports. Its queries are
    then normalised by their own, and therefore see each other (transductive, as the published figures); or by those that the supports have
    under the adapted weights, and no query sees another (inductive). The classifier is linear, with bias, on features of any length.
    Weights, number of steps and step sizes are those of the authors' Mini-ImageNet code, but for BN: there it has a shift only, which the
    inner loop leaves alone; here scale and shift move like everything else.

    Args:
        backbone: where to start, of plain or of similarity convolutions; left as it is. What asks for no gradient never moves.
        n_way: ways of the learned classifier, whose initial weights are `nn.Linear`'s.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        lr: inner step size of every weight.
        first_order: leave out second derivatives in training.
        transductive: normalise queries by their own statistics, all together; otherwise by the supports'.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    name = "maml"

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_way: int = 5,
        steps: int = 5,
        test_steps: int = 10,
        lr: float = 0.01,
        first_order: bool = False,
        transductive: bool = True,
        engine: Engine | None = None,
    ) -> None:
        super().__init__(n_way=n_way, steps=steps, test_steps=test_steps, first_order=first_order, engine=engine)
        self.transductive = transductive
        self.backbone = with_batch_statistics(backbone)
        self.classifier = nn.Linear(backbone.features, n_way)
        own = {name: parameter for name, parameter in self.backbone.named_parameters() if parameter.requires_grad}
        weight, bias = self.classifier.parameters()
        self.moving = {**own, CLASSIFIER: weight, BIAS: bias}
        self.rates = dict.fromkeys(self.moving, lr)

    def task_network(self, n_support: int) -> TaskNetwork:
        """The backbone, ready for many tasks; inductive, BN goes by the first `n_support` images of each."""
        if self.transductive:
            return super().task_network(n_support)
        return self.engine.network(with_first_statistics(self.backbone, n_support))

    def query_logits(
        self,
        network: TaskNetwork,
        parameters: Parameters,
        support: UInt8[Tensor, "tasks n_support c h w"],
        query: UInt8[Tensor, "tasks n_query c h w"],
    ) -> Float[Tensor, "tasks n_query way"]:
        """Of the queries alone, or, inductive, beside their supports, by which all are normalised."""
        if self.transductive:
            return super().query_logits(network, parameters, support, query)
        prepared = network.prepare(torch.cat([support, query], dim=1))
        return self.logits(network, parameters, prepared)[:, support.shape[1] :]

    def logits(self, network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
        """Features times classifier, plus bias."""
        return raw_features(network, parameters, prepared) @ parameters[CLASSIFIER].mT + parameters[BIAS][:, None]
