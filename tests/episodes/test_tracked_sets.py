"""The sets in `episodes/` are what its README says, and the README's own code replays them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot_nsl.data import ImageStore, load_card
from fewshot_nsl.episodes import EpisodeSampler, read_description, read_frozen
from fewshot_nsl.workspace import Workspace

FOLDER = Path(__file__).parents[2] / "episodes"
README = (FOLDER / "README.md").read_text()
TABLE = re.findall(r"^\| `([a-z0-9-]+)` \| ([0-9,]+) \| ([0-9,]+) \| `([0-9a-f]{64})` \|$", README, flags=re.MULTILINE)
SETS = [FOLDER / f"{name}.parquet" for name, *_ in TABLE]
GLYPHS = [path for path in SETS if path.stem.startswith("glyphs-")]

Images = tuple[list[np.ndarray], list[int]]


@pytest.fixture(scope="module")
def readme() -> dict[str, Any]:
    """The functions of the README's code."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)
    return names


def test_the_table_lists_the_sets_of_the_embedded_dataset_and_others() -> None:
    assert len(GLYPHS) == 4
    assert len(TABLE) == len(set(SETS)) == README.count("way-") > 4


@pytest.mark.parametrize(("name", "episodes", "size", "fingerprint"), TABLE, ids=lambda value: value if "way" in value else "")
def test_a_set_is_what_the_table_says(readme: dict[str, Any], name: str, episodes: str, size: str, fingerprint: str) -> None:
    path = FOLDER / f"{name}.parquet"
    assert readme["fingerprint"](path) == read_description(path).fingerprint == fingerprint
    assert (f"{read_description(path).episodes:,}", f"{path.stat().st_size:,}") == (episodes, size)


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.stem)
def test_a_set_is_of_the_images_that_everybody_has(workspace: Workspace, path: Path) -> None:
    description = read_description(path)
    assert description.store_fingerprint == load_card(workspace, description.dataset).fingerprint
    sizes = f"{description.n_way}way-{description.n_shot}shot-{description.episodes}"
    assert path.stem == f"{description.dataset}-{description.split}-{sizes}"
    assert (description.n_query, description.balanced, description.seed) == (15, True, 0)


@pytest.mark.parametrize("path", GLYPHS, ids=lambda path: path.stem)
def test_a_set_is_what_the_sampler_draws(glyph_store: ImageStore, path: Path) -> None:
    frozen = read_frozen(path, glyph_store)
    sampler = EpisodeSampler(glyph_store.split_labels("test"), 5, frozen.n_shot[0], 15, seed=0)
    for i in (0, 1, 599, len(frozen) - 1):
        assert all(np.array_equal(array, getattr(sampler[i], name)) for name, array in vars(frozen[i]).items())


def test_the_readme_replays_the_episodes(readme: dict[str, Any], glyph_store: ImageStore) -> None:
    rng = np.random.default_rng(0)
    images = {name: rng.permutation(glyph_store.images[glyph_store.labels == number]) for number, name in enumerate(glyph_store.classes)}
    path = FOLDER / "glyphs-test-5way-1shot-600.parquet"
    replay: Callable[[Path, object], Iterator[tuple[Images, Images]]] = readme["replay"]
    episodes = list(replay(path, images))
    assert len(episodes) == 600
    for (support, query), episode in zip(episodes, read_frozen(path, glyph_store), strict=True):
        assert np.array_equal(support[0], glyph_store.images[episode.support_rows])
        assert np.array_equal(query[0], glyph_store.images[episode.query_rows])
        assert (support[1], query[1]) == (episode.support_labels.tolist(), episode.query_labels.tolist())
