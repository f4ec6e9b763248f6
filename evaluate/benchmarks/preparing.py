"""Photographs to a store: time over decoding and resizing them alone, processor cores kept busy, and memory.

    python evaluate/benchmarks/preparing.py [--images 6000] [--rounds 3]

JPEGs of 500x375, made up, in 20 class folders, are prepared at 84x84. The peer decodes and resizes the same files, in as many threads as
there are processors, and keeps nothing. Ends with one line of JSON a figure.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from fewshot_nsl.bench import medians, peak_megabytes, report
from fewshot_nsl.data import new_card, prepare
from fewshot_nsl.devices import resolve_device
from fewshot_nsl.workspace import open_workspace

CLASSES, SIZE, NAME = 20, 84, "photographs"
GIGABYTE = 1024.0


def make_photographs(root: Path, images: int) -> list[Path]:
    """Smooth colours with some grain, which take about as long to decode as photographs."""
    rng = np.random.default_rng(0)
    paths = [root / f"class{i % CLASSES:02}" / f"{i}.jpg" for i in range(images)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        grain = rng.integers(-8, 9, (375, 500, 1))
        Image.fromarray((np.asarray(colours) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def decode_alone(paths: list[Path], threads: int) -> None:
    """What cannot be saved."""

    def decode(part: list[Path]) -> None:
        for path in part:
            with Image.open(path) as image:
                image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, (paths[i::threads] for i in range(threads))))


def busy_cores(work: Callable[[], object]) -> float:
    """Seconds of processors over seconds."""
    processors, start = time.process_time(), time.perf_counter()
    work()
    return (time.process_time() - processors) / (time.perf_counter() - start)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu"], help="nothing here runs elsewhere")
    arguments = parser.parse_args()
    device, cores = resolve_device(arguments.device), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source"
        paths = make_photographs(source, arguments.images)
        workspace = open_workspace(name)
        new_card(workspace, NAME, source, image_size=SIZE)

        def ours() -> None:
            prepare(workspace, NAME, source, force=True)

        peak = peak_megabytes(ours, device)
        spent = medians({"ours": ours, "alone": lambda: decode_alone(paths, cores)}, device, arguments.rounds)
        rates = {name: 1000 * len(paths) / milliseconds for name, milliseconds in spent.items()}
        report("preparing JPEGs: rate over decoding them alone", rates["ours"], rates["alone"], "images/s", device)
        report(f"preparing JPEGs: busy cores of {cores}", busy_cores(ours), cores, "cores", device)
        report("preparing JPEGs: peak memory over 1 GB", peak, GIGABYTE, "MB", device)


if __name__ == "__main__":
    main()
