import stat
from pathlib import Path

import pytest

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.workspace import Workspace, file_checksum, moved_into_place, open_workspace


def test_folders_of_a_workspace(workspace: Workspace) -> None:
    root = workspace.root
    assert (workspace.data, workspace.runs, workspace.results) == (root / "data", root / "runs", root / "evaluate" / "results")
    assert list(root.iterdir()) == []  # made when first written to


def test_the_root_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_workspace().root == tmp_path.resolve()
    assert open_workspace(".").root == tmp_path.resolve()


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ConfigurationError, match=f"workspace {path} is not a folder; make it first: mkdir -p '{path}'"):
            open_workspace(path)


def test_paths_are_shown_from_the_workspace(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace.relative(workspace.root / "runs" / "x") == Path("runs/x")
    monkeypatch.chdir(workspace.root)
    assert workspace.relative(Path("runs") / ".." / "data") == Path("data")
    outside = workspace.root.parent / "elsewhere"
    assert workspace.relative(outside) == outside


def test_the_workspaces_own_file_goes_before_the_packages(workspace: Workspace) -> None:
    shipped = workspace.find("data/cards/glyphs.toml")
    assert shipped is not None
    assert not shipped.is_relative_to(workspace.root)
    own = workspace.data / "cards" / "glyphs.toml"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert workspace.find("data/cards/glyphs.toml") == own
    assert workspace.find("data/cards/nothing.toml") is None
    assert workspace.find("data/cards") is None  # a folder is no file


def test_lists_hold_the_workspaces_own_and_the_packages(workspace: Workspace) -> None:
    shipped = workspace.list("data/cards", ".toml")
    assert {"cifar-fs", "glyphs", "mini-imagenet"} <= set(shipped)
    (workspace.data / "cards").mkdir(parents=True)
    for name in ("zebras.toml", "glyphs.toml", "notes.txt"):
        (workspace.data / "cards" / name).write_text("")
    assert workspace.list("data/cards", ".toml") == sorted([*shipped, "zebras"])
    assert workspace.list("data/nothing", ".toml") == []


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    with moved_into_place(path) as aside:
        assert aside.parent == path.parent  # the same file system, so that moving is one step
        aside.write_text("half")
        assert not path.exists()
        aside.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def _write_half(path: Path) -> None:
    with moved_into_place(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_checksum_is_sha_256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_checksum(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_files_are_listed_with_those_of_folders_in_the_folder(workspace: Workspace) -> None:
    for name in ("one/b.toml", "one/a.toml", "top.toml", "one/other.txt"):
        path = workspace.root / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert workspace.list("made", ".toml") == ["one/a", "one/b", "top"]
    assert workspace.list("nothing", ".toml") == []


def test_the_packages_files_are_listed_beside_the_workspaces_own(workspace: Workspace) -> None:
    shipped = workspace.list("evaluate/recipes", ".toml")
    assert "cifar-fs/dynamic" in shipped
    folder = workspace.root / "evaluate" / "recipes" / "cifar-fs"
    folder.mkdir(parents=True)
    for name in ("dynamic", "mine"):
        (folder / f"{name}.toml").touch()
    assert workspace.list("evaluate/recipes", ".toml") == sorted([*shipped, "cifar-fs/mine"])
