"""Evaluation of frozen and of finetuned networks, against one episode after the other.

    python evaluate/benchmarks/evaluating.py [--device auto|cpu|cuda] [--rounds 3] [--sizes 84 32] [--images-per-class 600] [--episodes 600]

Dynamic NSN with a retrained classifier, and static NSN finetuned; CNN-4 with 32 filters, 5-way 5-shot, 15 queries a class, 20 made-up
classes. What is compared must agree on the accuracy. Ends with one line of JSON a figure.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fewshot_nsl.backbones import Backbone, ModelDescription, build_model
from fewshot_nsl.backbones.pooled import NormReluPool2d
from fewshot_nsl.bench import Work, made_up_store, medians, report
from fewshot_nsl.data import ImageStore
from fewshot_nsl.devices import keep_freed_memory, resolve_device
from fewshot_nsl.episodes import EpisodeDataset, EpisodeSampler
from fewshot_nsl.evaluate.evaluator import FEATURE_EPISODES_AT_ONCE, draw_features, encode_rows, evaluate
from fewshot_nsl.inner_loop import Engine, LoopedNetwork, choose_engine, fast_engine, higher
from fewshot_nsl.strategies import Classifier, RetrainedClassifier, StaticFinetuned

CLASSES, WIDTH = 20, 32
FINETUNED_PART = 10
"""One of so many episodes is finetuned: each costs the same, and one after the other they take long."""

Batch = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support, support labels, query, query labels."""
Fit = Callable[[Tensor, Tensor], Classifier]


@dataclass(frozen=True)
class Bench:
    """The images, and what is asked of them."""

    store: ImageStore
    sampler: EpisodeSampler
    episodes: int
    device: torch.device
    rounds: int

    def backbone(self, similarity: str) -> Backbone:
        """A fresh one; the arithmetic does not ask what it learned."""
        torch.manual_seed(0)
        description = ModelDescription(
            backbone="cnn4",
            image_size=self.store.images.shape[1],
            channels=3,
            width=WIDTH,
            mean=self.store.mean,
            std=self.store.std,
            similarity="dynamic" if similarity == "dynamic" else "plain",
            structure="diagonal" if similarity == "dynamic" else None,
        )
        return build_model(description).to(self.device).eval()

    def dataset(self, tasks: int) -> EpisodeDataset:
        """All episodes, so many in a batch."""
        return EpisodeDataset(self.store, self.sampler, self.episodes, tasks)

    def images(self) -> Iterator[Batch]:
        """One episode after the other."""
        dataset = self.dataset(1)
        for batch in (dataset[index].to(self.device) for index in range(len(dataset))):
            yield batch.support, batch.support_labels, batch.query, batch.query_labels

    def compare(self, name: str, ours: Work, others: dict[str, Work]) -> str:
        """Report ours against each of the others, and name the fastest of them."""
        found = {title: work() for title, work in ({"ours": ours} | others).items()}
        if max(found.values()) - min(found.values()) > 0.005:  # type: ignore[type-var, operator]
            sys.exit(f"{name}: the accuracies differ: {found}")
        # That was the warm-up.
        spent = medians({"ours": ours} | others, self.device, self.rounds, warm_up=0)
        for other in others:
            report(f"{name}: time over one by one, {other}", spent["ours"] / 1000, spent[other] / 1000, "s", self.device)
        return min(others, key=lambda other: spent[other])


def accuracy(batches: Iterable[Batch], fit: Fit) -> float:
    """The mean of all."""
    found = [(fit(support, labels)(query).argmax(-1) == asked).double().mean() for support, labels, query, asked in batches]
    return float(torch.stack(found).mean())


def encoded(batches: Iterable[Batch], encode: Callable[[Tensor], Tensor]) -> Iterator[Batch]:
    """Features instead of images."""
    for support, labels, query, asked in batches:
        yield encode(support[0])[None], labels, encode(query[0])[None], asked


def compare_frozen(bench: Bench) -> None:
    """Dynamic NSN: features and classifiers, and classifiers alone."""
    strategy = RetrainedClassifier(bench.backbone("dynamic"))
    size = "{}x{}".format(*bench.store.images.shape[1:3])
    name = f"dynamic NSN, {bench.episodes} episodes of {len(bench.store.images)} images of {size}"

    def scikit(support: Tensor, labels: Tensor) -> Classifier:
        regression = LogisticRegression(C=1 / (support.shape[1] * strategy.penalty), fit_intercept=False)
        regression.fit(support[0].cpu().numpy(), labels[0].cpu().numpy())
        return lambda query: torch.from_numpy(regression.decision_function(query[0].cpu().numpy())).to(bench.device)[None]

    fits: dict[str, Fit] = {"our solver": strategy.fit, "scikit-learn": scikit}
    table = encode_rows(strategy.encode, bench.store, bench.sampler.rows, bench.device)

    def classify(tasks: int, fit: Fit) -> float:
        return accuracy(draw_features(bench.dataset(tasks), table), fit)

    alone: dict[str, Work] = {title: partial(classify, 1, fit) for title, fit in fits.items()}
    best = bench.compare(f"{name}, episodes alone", partial(classify, FEATURE_EPISODES_AT_ONCE, strategy.fit), alone)

    def one_by_one() -> float:
        return accuracy(encoded(bench.images(), strategy.encode), fits[best])

    def ours() -> float:
        return float(evaluate(strategy, bench.store, bench.sampler, bench.episodes, bench.device).mean())

    bench.compare(f"{name}, features included", ours, {best: one_by_one})


def in_plain_layers(backbone: Backbone) -> Backbone:
    """The same network as it is usually written: BN, ReLU and pooling one after the other."""
    backbone = copy.deepcopy(backbone)
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, NormReluPool2d):
                norm = nn.BatchNorm2d(child.num_features)
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, nn.Sequential(norm, nn.ReLU(), nn.MaxPool2d(2)))
    return backbone.eval()


def compare_finetuned(bench: Bench, engine: Engine) -> None:
    """Static NSN: all steps."""
    backbone = bench.backbone("plain")
    others = {"higher": higher(), "torch": Engine("torch", fast_engine.adapt, LoopedNetwork)}

    def ours() -> float:
        return float(evaluate(StaticFinetuned(backbone, engine=engine), bench.store, bench.sampler, bench.episodes, bench.device).mean())

    def one_by_one(engine: Engine) -> float:
        return accuracy(bench.images(), StaticFinetuned(in_plain_layers(backbone), engine=engine).fit)

    size = "{}x{}".format(*bench.store.images.shape[1:3])
    name = f"static NSN finetuned, {bench.episodes} episodes of {size}, {engine.name}"
    bench.compare(name, ours, {title: partial(one_by_one, other) for title, other in others.items()})


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[84, 32], help="pixels on a side")
    parser.add_argument("--images-per-class", type=int, default=600)
    parser.add_argument("--episodes", type=int, default=600)
    parser.add_argument("--engine", default="auto", choices=["auto", "fast", "plain"], help="of ours")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = resolve_device(arguments.device)
    engine = choose_engine(arguments.engine, device, announce=lambda line: print(line, file=sys.stderr))
    for side in arguments.sizes:
        store = made_up_store(side, CLASSES, arguments.images_per_class, split="test")
        sampler = EpisodeSampler(store.split_labels("test"), n_way=5, n_shot=5, n_query=15, seed=0)
        compare_frozen(Bench(store, sampler, arguments.episodes, device, arguments.rounds))
        compare_finetuned(Bench(store, sampler, arguments.episodes // FINETUNED_PART, device, arguments.rounds), engine)


if __name__ == "__main__":
    main()
