"""One second-order meta-step: MAML and meta-static, ours against every peer that is installed, and against the machine's floor.

    PYTHON evaluate/benchmarks/meta_step.py [--device auto|cpu|cuda] [--rounds 5] [--sizes 84 32] [--tasks 4] [--peers NAME ...]
    PYTHON evaluate/benchmarks/meta_step.py --scaling FILE.svg [...]

`PYTHON` is what `peers.py` prints; in any other environment of this package, the peers are those that it has. A peer is timed once its
loss and meta-gradient were found to be ours. CNN-4 with 32 filters, 5-way 5-shot, 15 queries a class, 5 inner steps; ours with the engine
that `auto` chooses, and with the plain one. Ends with one line of JSON a figure. With `--scaling`, time as tasks, steps and image size
grow, ours against higher, and a plot of it; what does not grow is as in the largest of the sizes.
"""

import argparse
import importlib.util
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from peers_imports import prepare_imports

from fewshot_nsl.bench import (
    PEERS,
    Comparison,
    MetaWork,
    Peer,
    agreeing_peers,
    ceilings,
    compare,
    installed_peers,
    our_work,
    peak_megabytes,
    peer_work,
    report,
    timed_strategies,
)
from fewshot_nsl.devices import keep_freed_memory, resolve_device
from fewshot_nsl.inner_loop import ENGINES, Engine, choose_engine

SIZES, SCALING_SIZES = (84, 32), (32, 48, 64, 84)
TASKS, STEPS = (1, 2, 4, 8), (1, 2, 5, 10)
"""Along which a step grows."""
OURS = "ours"
PEER = "higher"
"""Beside which ours is drawn."""


@dataclass(frozen=True)
class Bench:
    """What is compared, and where."""

    engines: Sequence[Engine]
    """Of ours; the first is the one that is drawn, and whose memory is measured."""
    strategies: Sequence[str]
    peers: Mapping[str, Peer]
    device: torch.device
    rounds: int
    operations: float
    """A second."""

    def compare(self, strategy: str, work: MetaWork) -> Comparison:
        """Time, and print the figures."""
        settings = {"rounds": self.rounds, "operations": self.operations}
        comparison = compare(strategy, work, self.engines, self.peers, self.device, **settings)
        print(*comparison.figures(self.device), sep="\n", flush=True)
        return comparison


def compare_all(bench: Bench, works: Sequence[MetaWork]) -> None:
    """Peak memory and time of every strategy and peer; memory first, while this process holds none."""
    rows = [(strategy, work) for work in works for strategy in bench.strategies]
    for strategy, work in rows:
        ours, *theirs = (_peak_in_a_fresh_process(bench, strategy, name, work) for name in (OURS, *bench.peers))
        for name, megabytes in zip(bench.peers, theirs, strict=True):
            title = f"{strategy}, {work}, {bench.engines[0].name}: peak memory over {name}"
            report(title, ours, megabytes, "MB", bench.device)
    for row in rows:
        bench.compare(*row)


def compare_growth(bench: Bench, base: MetaWork, sizes: Sequence[int], file: Path) -> None:
    """The time of steps that grow in one way at a time, and a plot."""
    axes = {
        "tasks": {tasks: replace(base, tasks=tasks) for tasks in TASKS},
        "inner steps": {steps: replace(base, steps=steps) for steps in STEPS},
        "pixels of an image": {side**2: replace(base, image_size=side) for side in sorted(sizes)},
    }
    works = dict.fromkeys(work for axis in axes.values() for work in axis.values())
    measured = {(strategy, work): bench.compare(strategy, work) for strategy in bench.strategies for work in works}
    _draw(bench, axes, measured, file)


def _draw(bench: Bench, axes: dict[str, dict[int, MetaWork]], measured: dict[tuple[str, MetaWork], Comparison], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True)
    for panel, (axis, works) in zip(panels, axes.items(), strict=True):
        for colour, strategy in enumerate(bench.strategies):
            rows = [measured[strategy, work] for work in works.values()]
            ours, theirs = [row.ours[bench.engines[0].name] for row in rows], [row.peers[PEER] for row in rows]
            lines = {OURS: ("-o", ours), PEER: ("--s", theirs)}
            for name, (style, times) in lines.items():
                panel.plot(list(works), times, style, color=f"C{colour}", markersize=4, label=f"{strategy}, {name}")
        panel.plot(list(works), [row.floor for row in rows], ":", color="grey", label="floor of both")
        panel.set_xlabel(axis)
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("a meta-step, ms")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(file)


def _peak_in_a_fresh_process(bench: Bench, strategy: str, name: str, work: MetaWork) -> float:
    options = {"device": bench.device.type, "engine": bench.engines[0].name, "sizes": work.image_size, "tasks": work.tasks}
    command = [sys.executable, __file__, "--peak", strategy, name, *(f"--{key}={value}" for key, value in options.items())]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def _print_peak(strategy: str, name: str, work: MetaWork, engine: Engine, device: torch.device) -> None:
    step = our_work(strategy, work, engine, device) if name == OURS else peer_work(strategy, work, PEERS[name], device)
    step()  # what is set up at the first call is no part of the work
    print(peak_megabytes(step, device))


def _notify(message: str) -> None:
    print(message, file=sys.stderr)


def main() -> None:
    """Run the comparison, or one peak of memory for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", type=int, help=f"pixels on a side, by default {SIZES}, or for --scaling {SCALING_SIZES}")
    parser.add_argument("--tasks", type=int, default=MetaWork.tasks)
    parser.add_argument("--strategies", nargs="+", default=[], help="by default all that can be timed")
    parser.add_argument("--engine", default="auto", choices=ENGINES, help="of ours; the plain one is timed beside it")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="by default all that are installed")
    parser.add_argument("--scaling", type=Path, metavar="FILE.svg", help="measure how time grows, and draw it here")
    parser.add_argument("--peak", nargs=2, metavar=("STRATEGY", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    engine = choose_engine(arguments.engine, device, announce=_notify)
    if importlib.util.find_spec("torchmeta"):  # the environment of peers.py
        prepare_imports()
    sizes = arguments.sizes or (SCALING_SIZES if arguments.scaling else SIZES)
    works = [MetaWork(image_size=side, tasks=arguments.tasks) for side in sizes]
    if arguments.peak:
        _print_peak(*arguments.peak, works[0], engine, device)
        return
    keep_freed_memory()
    engines = {each.name: each for each in (engine, choose_engine("plain", device))}
    strategies = timed_strategies(arguments.strategies)
    names = [PEER] if arguments.scaling else arguments.peers or PEERS
    peers = agreeing_peers(installed_peers(_notify, names), strategies, _notify)
    bench = Bench(list(engines.values()), strategies, peers, device, arguments.rounds, ceilings(device)[0])
    if arguments.scaling:
        compare_growth(bench, max(works, key=lambda work: work.image_size), sizes, arguments.scaling)
    else:
        compare_all(bench, works)


if __name__ == "__main__":
    main()
