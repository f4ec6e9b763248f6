"""Builds an environment in which the other libraries run, beside this package, and prints its Python.

    python evaluate/benchmarks/peers.py FOLDER

torchopt, parallel-metalearn and iteryne install as they are. Two do not on today's Python: learn2learn 0.2.0 ships C files that Python
3.11 cannot compile, so they are made again with Cython; torchmeta 1.8.0 demands a torch of 2021, so it goes in without its requirements.
What these two miss once they are installed, `peers_imports.py` supplies at import. A folder that is complete is left as it is. Takes some
minutes and a package index.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TOOLS = ("setuptools==80.10.2", "wheel==0.48.0", "cython==3.3.1")
"""What builds learn2learn."""

TORCH = ("torch==2.13.0", "torchvision==0.28.0")
"""Two that belong together. torchvision goes in without its requirements, so that it cannot bring another torch."""

NEEDED = (
    "numpy==2.4.6",
    "pillow==13.0.0",
    "gym==0.26.2",
    "scipy==1.17.1",
    "requests==2.34.2",
    "tqdm==4.70.1",
    "ordered-set==4.1.0",
    "h5py==3.16.0",
)
"""What learn2learn and torchmeta import."""

MENDED = ("learn2learn==0.2.0", "torchmeta==1.8.0")
"""Not installed as they are."""

PEERS = ("torchopt==0.7.3", "parallel-metalearn==0.5.6", "iteryne==0.1.0")
"""The rest, but for higher, which comes with this package."""

COMPLETE = "peers.txt"
"""Written last, with all of the above: a folder without it, or with others in it, is built anew."""


def build(folder: Path) -> Path:
    """The environment's Python, built if `folder` does not have it yet.

    Raises:
        SystemExit: the folder holds something else, or an installation failed (pip has said why).
    """
    python, note = folder / "bin" / "python", folder / COMPLETE
    recipe = "\n".join((*TOOLS, *TORCH, *NEEDED, *MENDED, *PEERS, str(ROOT))) + "\n"
    if note.is_file() and note.read_text() == recipe:
        return python
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise SystemExit(f"{folder} holds something else: expected a new or empty folder; give another one")
    venv.create(folder, clear=True, with_pip=True)
    _pip(python, "install", *TOOLS)
    _pip(python, "install", TORCH[0], *NEEDED, *PEERS)
    _pip(python, "install", "--no-deps", *TORCH[1:], MENDED[1])
    _build_learn2learn(python)
    _pip(python, "install", "--editable", str(ROOT))
    note.write_text(recipe)
    return python


def _build_learn2learn(python: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _pip(python, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--dest", name, MENDED[0])
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
        source = folder / archive.name.removesuffix(".tar.gz")
        _run(python, "-m", "cython", "-3", *map(str, sorted(source.glob("learn2learn/data/*.pyx"))))
        _pip(python, "install", "--no-deps", "--no-build-isolation", str(source))


def _pip(python: Path, command: str, *arguments: str) -> None:
    _run(python, "-m", "pip", command, "--quiet", *arguments)


def _run(python: Path, *arguments: str) -> None:
    # What these say goes beside: the last line that this script prints is the path.
    done = subprocess.run([str(python), *arguments], stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"failed: {python} {' '.join(arguments)}; mend it, then run this again")


def main() -> None:
    """Build, and print the path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(build(parser.parse_args().folder.absolute()))


if __name__ == "__main__":
    main()
