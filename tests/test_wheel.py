"""What a person gets who installs the built wheel and has no checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True, capture_output=True)
    return folder / "site"


def run(site: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_package_comes_from_the_wheel(site: Path, tmp_path: Path) -> None:
    assert run(site, tmp_path, "-c", "import fewshot_nsl; print(fewshot_nsl.__file__)").startswith(str(site))


def test_cards_travel_in_the_wheel(site: Path, tmp_path: Path) -> None:
    listed = run(site, tmp_path, "-m", "fewshot_nsl", "data", "list")
    assert all(name in listed for name in ("glyphs", "cifar-fs", "mini-imagenet"))


def test_embedded_dataset_is_prepared_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    assert "is prepared" in run(site, tmp_path, "-m", "fewshot_nsl", "data", "prepare", "glyphs")
    assert (tmp_path / "data" / "glyphs" / "images.npy").is_file()


def test_frozen_episodes_travel_in_the_wheel(site: Path, tmp_path: Path) -> None:
    output = run(site, tmp_path, "-m", "fewshot_nsl", "episodes", "show", "--frozen", "glyphs-test-5way-1shot-600", "--output", "seen.png")
    assert "Written to seen.png" in output
    suffixes = {path.suffix for path in (site / "fewshot_nsl" / "shipped" / "episodes").iterdir()}
    assert suffixes == {".md", ".parquet"}


def test_recipes_travel_in_the_wheel(site: Path, tmp_path: Path) -> None:
    listed = run(site, tmp_path, "-m", "fewshot_nsl", "recipes", "cifar-fs")
    assert all(f"cifar-fs/{name} " in listed for name in ("protonet", "meta-static", "dynamic"))


def test_wheel_holds_the_package_and_what_travels_with_it_only(site: Path) -> None:
    top = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"fewshot_nsl", "bin"}
