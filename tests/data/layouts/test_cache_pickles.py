import os
import pickle
import weakref
from collections.abc import Callable, Mapping
from io import BufferedIOBase
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data import load_card, prepare
from fewshot_nsl.data.layouts.cache_pickles import CACHE_PICKLES
from fewshot_nsl.data.pickles import load_plain_pickle
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

BEAR, ROAD = "n01855672", "n01930112"
IMAGES = np.zeros((6, 84, 84, 3), dtype=np.uint8)


def _path(root: Path, split: str) -> Path:
    return root / f"mini-imagenet-cache-{split}.pkl"


class _Touch:
    """A pickle of this makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("hide", [lambda touch: touch, lambda touch: {"image_data": IMAGES, "class_dict": {BEAR: [touch]}}])
def test_a_hostile_pickle_is_refused_by_name_and_runs_nothing(
    imagenet: Workspace, cache_pickles: Path, split: str, hide: Callable[[_Touch], object]
) -> None:
    touched = cache_pickles / "touched"
    _path(cache_pickles, split).write_bytes(pickle.dumps(hide(_Touch(touched))))
    with pytest.raises(DataError, match=rf"mini-imagenet-cache-{split}.pkl is a pickle that asks to run {os.system.__module__}.system"):
        prepare(imagenet, "mini-imagenet", cache_pickles)
    assert not touched.exists()
    assert not (imagenet.data / "mini-imagenet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"no image_data of uint8 \[n, 84, 84, 3\]"),
        ({}, "no image_data"),
        ({"image_data": IMAGES.tolist()}, "no image_data"),
        ({"image_data": IMAGES.astype(np.float32)}, "no image_data"),
        ({"image_data": IMAGES[:, :32, :32]}, "no image_data"),
        ({"image_data": IMAGES.transpose(0, 3, 1, 2)}, "no image_data"),
        ({"image_data": IMAGES[0]}, "no image_data"),
        ({"image_data": np.array(0, dtype=np.uint8)}, "no image_data"),
        ({"image_data": np.full((6, 84, 84, 3), None)}, "no image_data"),
        ({"image_data": IMAGES}, "no class_dict, from classes to places"),
        ({"image_data": IMAGES, "class_dict": [0, 1]}, "no class_dict"),
        ({"image_data": IMAGES, "class_dict": {"goat": [0, 1, 2, 3, 4, 5]}}, r"missing: n01855672; not in the card: goat"),
        ({"image_data": IMAGES, "class_dict": {BEAR: [0, 1, 2, 3, 4]}}, "5 in n01855672"),
        ({"image_data": IMAGES, "class_dict": {BEAR: []}}, "0 in n01855672"),
        ({"image_data": IMAGES, "class_dict": {1: [0, 1, 2, 3, 4, 5]}}, r"missing: n01855672; not in the card: none"),
    ],
)
def test_another_content_is_refused(imagenet: Workspace, cache_pickles: Path, content: object, message: str) -> None:
    _path(cache_pickles, "val").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        prepare(imagenet, "mini-imagenet", cache_pickles)


@pytest.mark.parametrize(
    "places",
    [
        [0, 1, 2, 3, 4, 6],
        [0, 1, 2, 3, 4, -1],
        [0, 1, 2, 3, 4, 2**70],
        [0, 1, 2, 3, 4, 4],
        [0, 1, 2, 3, 4, 5.0],
        [0, 1, 2, 3, 4, "5"],
        [0, 1, 2, 3, 4, None],
        [[0, 1], [2, 3], [4, 5]],
        [0, 1, [2, 3]],
        [0, 2, 3, 4, 5, True],
        "012345",
        5,
        {0: 1},
        np.arange(6.0),
        np.arange(6).reshape(2, 3),
        np.array([[0], None], dtype=object),
    ],
    ids=repr,
)
def test_what_is_no_list_of_different_places_is_refused(imagenet: Workspace, cache_pickles: Path, places: object) -> None:
    _path(cache_pickles, "val").write_bytes(pickle.dumps({"image_data": IMAGES, "class_dict": {BEAR: places}}))
    with pytest.raises(
        DataError, match=r"cache-val.pkl: class_dict\['n01855672'\] is no list of different places among 6 images; get a fresh"
    ):
        prepare(imagenet, "mini-imagenet", cache_pickles)


def test_a_class_in_two_pickles_is_refused(imagenet: Workspace, cache_pickles: Path) -> None:
    _path(cache_pickles, "test").write_bytes(_path(cache_pickles, "val").read_bytes())
    with pytest.raises(DataError, match=rf"split 'test' has 0 classes .*missing: {ROAD}"):
        prepare(imagenet, "mini-imagenet", cache_pickles)
    places = {BEAR: list(range(6)), ROAD: list(range(6))}
    _path(cache_pickles, "test").write_bytes(pickle.dumps({"image_data": IMAGES, "class_dict": places}))
    with pytest.raises(DataError, match=r"mini-imagenet has 24 images, but the .* layout has 30"):
        prepare(imagenet, "mini-imagenet", cache_pickles)


def test_a_missing_and_a_cut_pickle_are_named(imagenet: Workspace, cache_pickles: Path) -> None:
    path = _path(cache_pickles, "test")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"mini-imagenet-cache-test.pkl is not a whole pickle"):
        prepare(imagenet, "mini-imagenet", cache_pickles)
    path.unlink()
    with pytest.raises(DataError, match=r"has no mini-imagenet-cache-test.pkl; to get mini-imagenet: ask a friend"):
        prepare(imagenet, "mini-imagenet", cache_pickles)


def test_images_of_one_split_are_in_memory_at_a_time(
    imagenet: Workspace, cache_pickles: Path, photographs: Mapping[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[weakref.ref[np.ndarray]] = []

    def watched(file: BufferedIOBase, name: str) -> object:
        assert all(each() is None for each in kept), f"{name} is read while another is in memory"
        content = load_plain_pickle(file, name)
        assert isinstance(content, dict)
        kept.append(weakref.ref(content["image_data"]))
        return content

    monkeypatch.setattr("fewshot_nsl.data.layouts.cache_pickles.load_plain_pickle", watched)
    source = CACHE_PICKLES.read(load_card(imagenet, "mini-imagenet"), cache_pickles)
    for each in source.classes:
        np.testing.assert_array_equal(each.load(), photographs[each.name])
    assert len(kept) == 6
    assert source.classes[0].origins == tuple(f"mini-imagenet-cache-train.pkl#{place}" for place in range(0, 12, 2))
