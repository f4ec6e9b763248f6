import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_nsl.backbones import CNN4
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.evaluate import evaluate
from fewshot_nsl.evaluate.evaluator import FEATURE_EPISODES_AT_ONCE, IMAGES_AT_ONCE
from fewshot_nsl.strategies import Classifier, FeatureLearner, NearestMean, Strategy

CPU = torch.device("cpu")


@pytest.fixture
def sampler(tiny_store: ImageStore) -> EpisodeSampler:
    return EpisodeSampler(tiny_store.split_labels("test"), n_way=3, n_shot=2, n_query=4, seed=3)


@pytest.fixture
def nearest(tiny_store: ImageStore) -> NearestMean:
    torch.manual_seed(0)
    return NearestMean(CNN4(16, 3, width=4, mean=tiny_store.mean, std=tiny_store.std))


class _Oracle:
    """Knows the class of every image by heart, and which way stands for which class from the supports."""

    transductive = False

    def __init__(self, store: ImageStore) -> None:
        images = np.moveaxis(store.images, -1, 1)
        self.known = {_digest(torch.tensor(image)): int(label) for image, label in zip(images, store.labels, strict=True)}
        self.tasks_seen: list[int] = []

    def _classes(self, images: Tensor) -> Tensor:
        return torch.tensor([[self.known[_digest(image)] for image in task] for task in images])

    def fit(self, support: Tensor, support_labels: Tensor) -> Classifier:
        self.tasks_seen.append(len(support))
        way_class = torch.zeros(len(support), 3, dtype=torch.int64).scatter(1, support_labels, self._classes(support))
        return lambda query: (self._classes(query)[:, :, None] == way_class[:, None]).double()


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


class _Constant:
    """Always the same way."""

    transductive = False

    def __init__(self, way: int) -> None:
        self.way = way

    def fit(self, support: Tensor, support_labels: Tensor) -> Classifier:
        del support_labels
        return lambda query: torch.eye(3)[self.way].expand(len(support), query.shape[1], 3)


def test_one_who_knows_everything_has_no_error(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    oracle = _Oracle(tiny_store)
    assert isinstance(oracle, Strategy)
    accuracies = evaluate(oracle, tiny_store, sampler, 25, CPU)
    assert accuracies.dtype == np.float64
    assert accuracies.tolist() == [1.0] * 25
    assert sum(oracle.tasks_seen) == 25


@pytest.mark.parametrize("way", [0, 1, 2])
def test_one_who_always_says_the_same_is_right_once_in_n_way(tiny_store: ImageStore, sampler: EpisodeSampler, way: int) -> None:
    assert evaluate(_Constant(way), tiny_store, sampler, 11, CPU).tolist() == pytest.approx([1 / 3] * 11)


class _Nameless:
    """A user's own learner that knows of no protocol: the mean colour that is nearest."""

    def fit(self, support: Tensor, support_labels: Tensor) -> Classifier:
        colours = support.double().mean((3, 4))
        means = torch.stack([_mean(colours, support_labels == way) for way in range(3)], dim=1)
        return lambda query: -torch.cdist(query.double().mean((3, 4)), means)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen[..., None]).sum(1) / chosen.sum(1, keepdim=True)


def test_ones_own_object_needs_only_fit(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    accuracies = evaluate(_Nameless(), tiny_store, sampler, 12, CPU)
    assert accuracies.mean() > 0.9  # the classes are colours


class _EncodesItself:
    """`NearestMean` on images: the same learner, without the evaluator's table of features."""

    transductive = False

    def __init__(self, inner: NearestMean) -> None:
        self.inner = inner

    def fit(self, support: Tensor, support_labels: Tensor) -> Classifier:
        classifier = self.inner.fit(self._encode(support), support_labels)
        return lambda query: classifier(self._encode(query))

    def _encode(self, images: Tensor) -> Tensor:
        return self.inner.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def test_features_encoded_once_give_what_images_give(tiny_store: ImageStore, sampler: EpisodeSampler, nearest: NearestMean) -> None:
    assert not isinstance(_EncodesItself(nearest), FeatureLearner)
    episodes = FEATURE_EPISODES_AT_ONCE + 3
    by_images = evaluate(_EncodesItself(nearest), tiny_store, sampler, episodes, CPU)
    assert np.array_equal(evaluate(nearest, tiny_store, sampler, episodes, CPU), by_images)
    assert 0.34 < by_images.mean() < 1
    assert len(set(by_images.tolist())) > 3


class _Counting(NearestMean):
    def __init__(self, inner: NearestMean) -> None:
        super().__init__(inner.backbone)
        self.encoded: list[Tensor] = []

    def encode(self, images: Tensor) -> Tensor:
        self.encoded.append(images)
        return super().encode(images)


def test_each_image_of_the_split_is_encoded_once(tiny_store: ImageStore, sampler: EpisodeSampler, nearest: NearestMean) -> None:
    strategy = _Counting(nearest)
    evaluate(strategy, tiny_store, sampler, 40, CPU)
    images = torch.cat(strategy.encoded)
    assert images.dtype == torch.uint8
    assert np.array_equal(images.movedim(1, -1).numpy(), tiny_store.images[sampler.rows])
    assert all(len(chunk) <= IMAGES_AT_ONCE for chunk in strategy.encoded)


def test_each_episode_counts_its_own_queries(tiny_store: ImageStore, sampler: EpisodeSampler, nearest: NearestMean) -> None:
    accuracies = evaluate(nearest, tiny_store, sampler, 5, CPU)
    batch = EpisodeDataset(tiny_store, sampler, 5, 5)[0]
    logits = _EncodesItself(nearest).fit(batch.support, batch.support_labels)(batch.query)
    for task in range(5):
        right = sum(int(logits[task, i].argmax()) == int(batch.query_labels[task, i]) for i in range(12))
        assert accuracies[task] == right / 12


class _Listening:
    transductive = False

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def fit(self, support: Tensor, support_labels: Tensor) -> Classifier:
        self.seen += [support, support_labels]
        return self._answer

    def _answer(self, query: Tensor) -> Tensor:
        self.seen.append(query)
        return torch.zeros(*query.shape[:2], 3)


def test_every_strategy_meets_the_same_episodes(tiny_store: ImageStore, sampler: EpisodeSampler) -> None:
    first, second = _Listening(), _Listening()
    evaluate(first, tiny_store, sampler, 12, CPU)
    again = EpisodeSampler(tiny_store.split_labels("test"), n_way=3, n_shot=2, n_query=4, seed=3)
    evaluate(second, tiny_store, again, 12, CPU)
    assert len(first.seen) == len(second.seen) > 3
    assert all(torch.equal(a, b) for a, b in zip(first.seen, second.seen, strict=True))


def test_more_episodes_begin_with_the_same(tiny_store: ImageStore, sampler: EpisodeSampler, nearest: NearestMean) -> None:
    few, many = (evaluate(nearest, tiny_store, sampler, episodes, CPU) for episodes in (7, 23))
    assert np.array_equal(few, many[:7])


def test_episodes_may_have_uneven_shots(tiny_store: ImageStore, nearest: NearestMean) -> None:
    sampler = EpisodeSampler(tiny_store.split_labels("test"), 3, [1, 4, 2], 4, seed=3)
    by_images = evaluate(_EncodesItself(nearest), tiny_store, sampler, 12, CPU)
    assert np.array_equal(evaluate(nearest, tiny_store, sampler, 12, CPU), by_images)


@pytest.mark.parametrize("features", [True, False])
def test_progress_ends_at_all(tiny_store: ImageStore, sampler: EpisodeSampler, nearest: NearestMean, *, features: bool) -> None:
    calls: list[tuple[int, int]] = []
    strategy = nearest if features else _EncodesItself(nearest)
    evaluate(strategy, tiny_store, sampler, 23, CPU, progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (23, 23)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
