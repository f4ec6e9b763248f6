"""Episodes a second from a store, against a bare gather, learn2learn and torchmeta; and what opening a store costs.

    python evaluate/benchmarks/loading.py [--peers PYTHON] [--rounds 15] [--images-per-class 600]

5-way 5-shot episodes with 15 queries a class, 84x84, uint8, from the 64 training classes of a made-up store of 100 classes. `PYTHON` is
what `peers.py` prints; without it, the figures against the two libraries are left out. Ends with one line of JSON a figure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from fewshot_nsl.backbones.normalise import Normalise
from fewshot_nsl.bench import Work, ceilings, medians, report
from fewshot_nsl.data import SPLITS, Card, ImageStore, Source, SourceClass, open_store
from fewshot_nsl.data.write import write_store
from fewshot_nsl.devices import keep_freed_memory, resolve_device
from fewshot_nsl.episodes import EpisodeDataset, EpisodeLoader, EpisodeSampler
from fewshot_nsl.workspace import open_workspace

N_WAY, N_SHOT, N_QUERY = 5, 5, 15
EPISODES, TASKS = 200, 10
"""Episodes of a round, and of a batch."""

CLASSES = dict(zip(SPLITS, (64, 16, 20), strict=True))
SIZE = 84
NAME = "made-up"

Process = subprocess.Popen[str]

MILLISECONDS, MEGABYTES = 50.0, 50.0
"""What opening a store may take and add."""


def make_store(root: Path, images_per_class: int) -> None:
    """Write a store of noise into the workspace `root`."""
    splits = {split: tuple(f"{split}{i:02}" for i in range(count)) for split, count in CLASSES.items()}
    about = dict.fromkeys(("licence", "citation", "homepage", "how_to_get"), "none")
    card = Card(name=NAME, title="Noise", image_size=SIZE, channels=3, augmentations=(), splits=splits, **about)
    origins = tuple(map(str, range(images_per_class)))
    names = [(split, name) for split, names in splits.items() for name in names]
    classes = [SourceClass(split, name, origins, partial(_noise, i, images_per_class)) for i, (split, name) in enumerate(names)]
    folder = root / "data" / NAME
    folder.mkdir(parents=True)
    write_store(card, Source("made up", classes), folder)


def _noise(number: int, images: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (images, SIZE, SIZE, 3), dtype=np.uint8)


def loader_of(store: ImageStore, device: torch.device) -> EpisodeLoader:
    """The episodes of a round."""
    sampler = EpisodeSampler(store.split_labels("train"), N_WAY, N_SHOT, N_QUERY, seed=0)
    return EpisodeLoader(EpisodeDataset(store, sampler, EPISODES, TASKS), device)


def exhaust(loader: EpisodeLoader) -> None:
    """Every batch of a round."""
    for _ in loader:
        pass


def bare_gather(store: ImageStore, loader: EpisodeLoader) -> Work:
    """The same rows, known beforehand, batch by batch, by numpy alone."""
    images = np.asarray(store.images)
    batches = [torch.cat([batch.support_rows, batch.query_rows], dim=1).flatten().numpy() for batch in loader]

    def work() -> None:
        for rows in batches:
            _ = images[rows]  # kept until the next is there, as `exhaust` and any training loop keep theirs

    return work


def compare_rates(store: ImageStore, peers: Path | None, rounds: int) -> None:
    """Episodes a second, in rounds that all take turns in; the libraries in a process of their own, whose turn is awaited."""
    device = torch.device("cpu")
    np.max(store.images)  # every page of the file is mapped before anything is timed
    loader = loader_of(store, device)
    works: dict[str, Work] = {"ours": lambda: exhaust(loader), "a numpy gather of the same rows": bare_gather(store, loader)}
    with ExitStack() as stack:
        if peers:
            process = stack.enter_context(_start(peers, store))  # on leaving, its input is closed, and it ends
            works |= {name: partial(_take_turn, process, name) for name in json.loads(_line(process))}
        rates = {name: 1000 * EPISODES / milliseconds for name, milliseconds in medians(works, device, rounds).items()}
    for name, rate in rates.items():
        if name != "ours":
            report(f"episodes on the CPU: rate over {name}", rates["ours"], rate, "episodes/s", device)


def _start(python: Path, store: ImageStore) -> Process:
    script = Path(__file__).with_name("loading_peers.py")
    sizes = map(str, (N_WAY, N_SHOT, N_QUERY, EPISODES, TASKS))
    command = [str(python), str(script), str(store.root), *sizes]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _line(process: Process) -> str:
    if not (line := process.stdout.readline()):
        raise SystemExit("the process with learn2learn and torchmeta stopped; what it said is above")
    return line


def _take_turn(process: Process, name: str) -> None:
    print(name, file=process.stdin, flush=True)
    _line(process)


def compare_on_gpu(store: ImageStore, device: torch.device, rounds: int) -> None:
    """Batches of a resident store, normalised there, against reading their pixels and writing their floats at the rate of a large copy."""
    loader, normalise = loader_of(store, device), Normalise(store.mean, store.std).to(device)

    def work() -> None:
        for batch in loader:
            normalise(batch.support.flatten(0, 1))
            normalise(batch.query.flatten(0, 1))

    spent = medians({"ours": work}, device, rounds)["ours"]
    numbers = EPISODES * N_WAY * (N_SHOT + N_QUERY) * store.images[0].size
    _, traffic = ceilings(device)
    report("episodes resident on the GPU, normalised: time over their traffic", spent, 1e3 * numbers * (1 + 4) / traffic, "ms", device)


def compare_opening(store: ImageStore, rounds: int) -> None:
    """Time and memory of opening the store, the median of fresh processes, over what they may be."""
    command = [sys.executable, __file__, "--open", str(store.root.parents[1])]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(min(rounds, 9))]
    milliseconds, megabytes = (median(map(float, values)) for values in zip(*runs, strict=True))
    name, device = f"opening a store of {len(store.images)} images", torch.device("cpu")
    report(f"{name}: time over {MILLISECONDS:.0f} ms", milliseconds, MILLISECONDS, "ms", device)
    report(f"{name}: resident memory over {MEGABYTES:.0f} MB", megabytes, MEGABYTES, "MB", device)


def print_cost_of_opening(root: Path) -> None:
    """Milliseconds, and resident megabytes added, in this process."""
    workspace = open_workspace(root)
    before, start = _resident_bytes(), time.perf_counter()
    store = open_store(workspace, NAME)
    spent, after = time.perf_counter() - start, _resident_bytes()
    print(1e3 * spent, (after - before) / 2**20)
    assert len(store.labels) == len(store.images)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run the comparison, or open the store once for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="the Python that peers.py prints")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="on a GPU, episodes of a resident store too")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images-per-class", type=int, default=600)
    parser.add_argument("--open", type=Path, metavar="WORKSPACE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.open:
        print_cost_of_opening(arguments.open)
        return
    if not arguments.peers:
        print("no --peers: learn2learn and torchmeta are left out; python evaluate/benchmarks/peers.py FOLDER", file=sys.stderr)
    keep_freed_memory()
    device = resolve_device(arguments.device)
    with tempfile.TemporaryDirectory() as name:
        make_store(Path(name), arguments.images_per_class)
        store = open_store(open_workspace(name), NAME)
        compare_opening(store, arguments.rounds)
        compare_rates(store, arguments.peers, arguments.rounds)
        if device.type == "cuda":
            compare_on_gpu(store, device, arguments.rounds)


if __name__ == "__main__":
    main()
