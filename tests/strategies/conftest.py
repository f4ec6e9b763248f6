"""A small backbone in double precision, and a batch of episodes for it."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewshot_nsl.backbones import CNN4, Backbone
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeBatch, EpisodeDataset, EpisodeSampler
from fewshot_nsl.similarity import SpherePredictor, convert
from fewshot_nsl.strategies import META_STRATEGIES, STRATEGIES, EpisodeLearner, FeatureLearner, LearnsBase, LearnsClassifier, Strategy

Predict = Callable[[Strategy, Tensor, Tensor, Tensor], Tensor]


@pytest.fixture
def batch(tiny_store: ImageStore) -> EpisodeBatch:
    """Two 3-way 4-shot tasks of 4 queries a class."""
    sampler = EpisodeSampler(tiny_store.split_labels("val"), n_way=3, n_shot=4, n_query=4, seed=1)
    return EpisodeDataset(tiny_store, sampler, episodes=2, tasks=2)[0]


@pytest.fixture
def base_images(tiny_store: ImageStore) -> Tensor:
    """All of the `train` split."""
    return torch.from_numpy(tiny_store.images[np.array(tiny_store.splits["train"])]).movedim(-1, 1)


@pytest.fixture
def backbone(tiny_store: ImageStore, base_images: Tensor) -> Backbone:
    """CNN-4 with 6 filters, random weights, and batch statistics of the base images."""
    torch.manual_seed(0)
    network = CNN4(16, 3, width=6, mean=tiny_store.mean, std=tiny_store.std).double()
    with torch.no_grad():
        for _ in range(20):
            network(base_images)
    return network.eval()


@pytest.fixture
def dynamic_backbone(backbone: Backbone) -> Backbone:
    """The same with dynamic similarity away from the identity."""
    network = cast(Backbone, convert(backbone, "dynamic"))
    for layer in network.modules():
        if isinstance(layer, SpherePredictor):
            nn.init.constant_(layer.gain, 0.5)
    return network


@pytest.fixture(scope="session")
def new_learner(tiny_store: ImageStore) -> Callable[..., EpisodeLearner]:
    """A strategy by its name in `META_STRATEGIES`, on CNN-4 with 4 filters of the similarity that it starts from; settings by keyword."""

    def make(name: str, **settings: Any) -> EpisodeLearner:
        entry = META_STRATEGIES[name]
        torch.manual_seed(0)
        network = CNN4(16, 3, width=4, mean=tiny_store.mean, std=tiny_store.std)
        return entry.build(convert(network, "dynamic") if entry.pretrained == "dynamic" else network, **settings)

    return make


@pytest.fixture
def build(backbone: Backbone, dynamic_backbone: Backbone, base_images: Tensor) -> Callable[..., Strategy]:
    """A strategy by its name in `STRATEGIES`, for 3 ways, given base images or their classifier if it wants them; settings by keyword."""

    def make(name: str, **settings: Any) -> Strategy:
        entry = STRATEGIES[name]
        if "n_way" in inspect.signature(entry.build).parameters:
            settings["n_way"] = 3
        torch.manual_seed(0)
        network = META_STRATEGIES[name].pretrained if name in META_STRATEGIES else entry.network
        strategy = entry.build(dynamic_backbone if network == "dynamic" else backbone, **settings)
        if isinstance(strategy, LearnsBase):
            strategy.learn_base([base_images])
        if isinstance(strategy, LearnsClassifier):
            strategy.learn_classifier(torch.randn(4, backbone.features), torch.randn(4))
        return strategy.double() if isinstance(strategy, nn.Module) else strategy

    return make


@pytest.fixture
def predict() -> Predict:
    """Logits of the queries, through features where the strategy works on them."""

    def run(strategy: Strategy, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        if isinstance(strategy, FeatureLearner):
            support, query = (strategy.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2]) for images in (support, query))
        return strategy.fit(support, labels)(query)

    return run
