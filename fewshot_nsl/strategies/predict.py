"""From a batch of episodes straight to logits."""

from jaxtyping import Float
from torch import Tensor

from fewshot_nsl.episodes import EpisodeBatch
from fewshot_nsl.strategies.strategy import FeatureLearner, Learner


def predict(learner: Learner, batch: EpisodeBatch) -> Float[Tensor, "tasks n_query way"]:
    """Logits of the queries after learning each task from its supports: `fit` and classifier composed, on features where they take these.

    (The evaluator encodes each image of a split once instead, since images return in many episodes.)
    """
    support, query = batch.support, batch.query
    if isinstance(learner, FeatureLearner):
        support, query = (learner.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (support, query))
    return learner.fit(support, batch.support_labels)(query)
