from pathlib import Path

import pytest

from fewshot_nsl.data import Card, Source, load_card, prepare
from fewshot_nsl.data.layouts.layout import Layout, find_layout
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


def _of_file(name: str) -> Layout:
    """A layout that is known by a file of that name, in a folder `inside`."""

    def find(_: Card, source: Path) -> Path | None:
        return source / "inside" if (source / "inside" / name).exists() else None

    return Layout(name.upper(), f"a file {name}", find, lambda *_: Source(name, []))


def test_the_first_layout_that_fits_is_taken_with_the_place_where_it_begins(workspace: Workspace, tmp_path: Path) -> None:
    card, layouts = load_card(workspace, "mini-imagenet"), [_of_file(name) for name in "abc"]
    (tmp_path / "inside").mkdir()
    for name, expected in (("c", "C"), ("b", "B"), ("a", "A")):
        (tmp_path / "inside" / name).touch()
        layout, root = find_layout(card, tmp_path, layouts)
        assert (layout.name, root) == (expected, tmp_path / "inside")


def test_no_layout_and_no_source_say_what_is_expected(workspace: Workspace, tmp_path: Path) -> None:
    card, layouts = load_card(workspace, "mini-imagenet"), [_of_file("a"), _of_file("b")]
    with pytest.raises(
        DataError, match=r"is in no layout known for mini-imagenet: expected a file a; or a file b; to get it: ask a friend"
    ):
        find_layout(card, tmp_path, layouts)
    with pytest.raises(DataError, match=r"absent does not exist; to get mini-imagenet: ask a friend"):
        find_layout(card, tmp_path / "absent", layouts)


def test_of_two_layouts_in_one_folder_lists_of_images_go_first(
    imagenet: Workspace, lists: Path, cache_pickles: Path, class_folders: Path
) -> None:
    for path in (*cache_pickles.iterdir(), *class_folders.iterdir()):
        path.rename(lists / path.name)
    announced: list[str] = []
    prepare(imagenet, "mini-imagenet", lists, announce=announced.append)
    assert announced == ["images and lists"]


@pytest.mark.parametrize("kind", ["empty folder", "file"])
def test_neither_an_empty_folder_nor_any_file_is_a_dataset(imagenet: Workspace, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.mkdir() if kind == "empty folder" else source.write_text("images")
    for name in ("mini-imagenet", "cifar-fs", "omniglot", "tiered-imagenet", "cub", "fc100"):
        with pytest.raises(DataError, match=f"source is in no layout known for {name}: expected"):
            prepare(imagenet, name, source)
