"""What strategies with an inner loop share: gradient steps on a task from a learned start, and a loss through them."""

from abc import abstractmethod

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone
from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.errors import EpisodeError
from fewshot_nsl.inner_loop import Engine, Parameters, TaskNetwork, fast
from fewshot_nsl.strategies.episode_learner import EpisodeLearner
from fewshot_nsl.strategies.strategy import Classifier
from fewshot_nsl.strategies.tasks import cross_entropies, expand


class MetaLearner(EpisodeLearner):
    """Algorithm 2 of Finn et al. (2017): an inner loop for each task, and a loss on its queries for the outer loop.

    A subclass says what moves in the inner loop and what the logits are. The parameters that ask for a gradient are what the outer loop
    moves.

    Args:
        n_way: ways of the learned classifier.
        steps: inner steps in training.
        test_steps: inner steps in `fit`.
        first_order: leave out second derivatives in training.
        engine: of the inner loop; by default the fast one on torch's operators.
    """

    backbone: Backbone
    """From images to features."""
    moving: dict[str, nn.Parameter]
    """Where the inner loop starts: parameters of the backbone by its names, and of the classifier."""
    rates: dict[str, float]
    """Inner step size of each."""

    def __init__(self, *, n_way: int, steps: int, test_steps: int, first_order: bool, engine: Engine | None) -> None:
        super().__init__()
        self.n_way, self.steps, self.test_steps, self.first_order = n_way, steps, test_steps, first_order
        self.engine = engine or fast()

    def task_network(self, n_support: int) -> TaskNetwork:
        """The backbone, ready for many tasks of `n_support` support images each."""
        del n_support
        return self.engine.network(self.backbone)

    @abstractmethod
    def logits(self, network: TaskNetwork, parameters: Parameters, prepared: Tensor) -> Float[Tensor, "tasks n way"]:
        """Logits of each task's `prepared` images; `network` is `task_network()`, `parameters` are the task's own of what is `moving`."""
        ...

    def query_logits(
        self,
        network: TaskNetwork,
        parameters: Parameters,
        support: UInt8[Tensor, "tasks n_support c h w"],
        query: UInt8[Tensor, "tasks n_query c h w"],
    ) -> Float[Tensor, "tasks n_query way"]:
        """Logits of each task's queries once its supports made `parameters` its own; here these are all that is left of the supports."""
        del support
        return self.logits(network, parameters, network.prepare(query))

    def fit(self, support: UInt8[Tensor, "tasks n_support c h w"], support_labels: Int64[Tensor, "tasks n_support"]) -> Classifier:
        """Adapt what moves to each task with `test_steps` steps.

        Raises:
            EpisodeError: the tasks have another number of ways than the learned classifier.
        """
        way = int(support_labels.max()) + 1
        if way != self.n_way:
            raise EpisodeError(f"{self.name} learned a {self.n_way}-way classifier, the episodes have {way} ways; use --n-way {self.n_way}")
        network = self.task_network(support.shape[1])
        start = {name: value.detach() for name, value in expand(self.moving, len(support)).items()}
        adapted = self._adapt(network, start, support, support_labels, self.test_steps, first_order=True)
        adapted = {name: value.detach() for name, value in adapted.items()}
        return torch.no_grad()(lambda query: self.query_logits(network, adapted, support, query))

    def loss(self, batch: EpisodeBatch) -> Float[Tensor, " tasks"]:
        """Mean cross entropy on each task's queries after adapting to its supports; differentiable through the inner loop."""
        network = self.task_network(batch.support.shape[1])
        start = expand(self.moving, len(batch.support))
        adapted = self._adapt(network, start, batch.support, batch.support_labels, self.steps, first_order=self.first_order)
        return cross_entropies(self.query_logits(network, adapted, batch.support, batch.query), batch.query_labels)

    def _adapt(
        self, network: TaskNetwork, start: Parameters, support: Tensor, labels: Tensor, steps: int, *, first_order: bool
    ) -> Parameters:
        prepared = network.prepare(support)

        def inner(parameters: Parameters) -> Tensor:
            return cross_entropies(self.logits(network, parameters, prepared), labels)

        return self.engine.adapt(inner, start, steps=steps, lr=self.rates, first_order=first_order)
