import errno
import os
import resource
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import fewshot_nsl
from fewshot_nsl.data import open_store, prepare, prepared_stores, verify
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

ROOT = Path(fewshot_nsl.__file__).parents[1]

KILLED = """
import os, signal, sys
from pathlib import Path
from fewshot_nsl.data import prepare
from fewshot_nsl.workspace import open_workspace

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

workspace, source, moment = open_workspace(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if moment == "half-way":
    prepare(workspace, "cifar-fs", source, force=True, progress=lambda done, total: die() if 2 * done >= total else None)
rename, calls = Path.rename, int(moment)
def rename_or_die(path, target):
    global calls
    if calls == 0:
        die()
    calls -= 1
    return rename(path, target)
Path.rename = rename_or_die
prepare(workspace, "cifar-fs", source, force=True)
"""


def _killed(workspace: Workspace, source: Path, moment: str) -> None:
    """A process that prepares and is killed (kill -9): half-way, or after so many moves of a folder."""
    done = subprocess.run([sys.executable, "-c", KILLED, workspace.root, source, moment], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def _names(workspace: Workspace) -> list[str]:
    return sorted(path.name for path in workspace.data.iterdir() if path.name not in ("cards", ".cifar-fs.lock"))


@pytest.mark.parametrize("moment", ["half-way", "0"])
def test_a_killed_first_preparation_leaves_no_store_and_the_next_tidies_up(workspace: Workspace, cifar_folders: Path, moment: str) -> None:
    _killed(workspace, cifar_folders, moment)
    assert prepared_stores(workspace) == []
    assert len(_names(workspace)) == 1  # what it had written so far
    (workspace.data / ".cifar-fs-extra-01234567").mkdir()  # of a dataset with a longer name
    prepare(workspace, "cifar-fs", cifar_folders)
    verify(workspace, "cifar-fs")
    assert _names(workspace) == [".cifar-fs-extra-01234567", "cifar-fs"]


@pytest.mark.parametrize("moment", ["half-way", "0", "1"])
def test_a_killed_replacement_loses_nothing(workspace: Workspace, cifar_folders: Path, moment: str) -> None:
    before = prepare(workspace, "cifar-fs", cifar_folders)
    _killed(workspace, cifar_folders, moment)
    assert prepare(workspace, "cifar-fs").fingerprint == before.fingerprint  # without a source: nothing has to be read again
    prepare(workspace, "cifar-fs", cifar_folders, force=True)
    assert verify(workspace, "cifar-fs").fingerprint == before.fingerprint
    assert _names(workspace) == ["cifar-fs"]


def test_a_prepared_dataset_is_left_as_it_is(workspace: Workspace, cifar_folders: Path) -> None:
    store = prepare(workspace, "cifar-fs", cifar_folders)
    written = (store.root / "card.toml").stat()
    assert prepare(workspace, "cifar-fs", cifar_folders / "nonsense").fingerprint == store.fingerprint
    assert (store.root / "card.toml").stat().st_ino == written.st_ino
    prepare(workspace, "cifar-fs", cifar_folders, force=True)
    assert (store.root / "card.toml").stat().st_ino != written.st_ino


def test_a_failed_replacement_keeps_the_old_store(workspace: Workspace, cifar_folders: Path) -> None:
    store = prepare(workspace, "cifar-fs", cifar_folders)
    (cifar_folders / "cifar100" / "data" / "road" / "5.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"5.png cannot be read .*it is empty"):
        prepare(workspace, "cifar-fs", cifar_folders, force=True)
    assert verify(workspace, "cifar-fs").fingerprint == store.fingerprint
    assert _names(workspace) == ["cifar-fs"]


def test_a_damaged_store_is_not_taken_for_prepared_but_can_be_replaced(workspace: Workspace, cifar_folders: Path) -> None:
    (prepare(workspace, "cifar-fs", cifar_folders).root / "index.parquet").unlink()
    with pytest.raises(DataError, match="--force"):
        prepare(workspace, "cifar-fs", cifar_folders)
    prepare(workspace, "cifar-fs", cifar_folders, force=True)
    verify(workspace, "cifar-fs")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_store_is_never_replaced(workspace: Workspace, cifar_folders: Path, force: bool) -> None:
    (workspace.data / "cifar-fs").mkdir()
    (workspace.data / "cifar-fs" / "photographs").touch()
    with pytest.raises(DataError, match="is not a store and will not be replaced; move it away"):
        prepare(workspace, "cifar-fs", cifar_folders, force=force)
    assert (workspace.data / "cifar-fs" / "photographs").exists()


def test_at_the_same_time_one_prepares_and_the_others_wait(workspace: Workspace, cifar_folders: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: prepare(workspace, "cifar-fs", cifar_folders), range(4)))
    assert len({(store.root / "card.toml").stat().st_ino for store in stores}) == 1
    assert _names(workspace) == ["cifar-fs"]


def test_two_commands_at_once_make_one_store(workspace: Workspace, cifar_folders: Path) -> None:
    command = [sys.executable, "-m", "fewshot_nsl", "data", "prepare", "cifar-fs", "--force", "--from", str(cifar_folders)]
    both = [subprocess.Popen([*command, "--workspace", str(workspace.root)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = {each.communicate()[0] for each in both}
    assert [each.returncode for each in both] == [0, 0]
    assert len(outputs) == 1
    assert verify(workspace, "cifar-fs").fingerprint in outputs.pop()
    assert _names(workspace) == ["cifar-fs"]


@pytest.mark.parametrize("limit", [1000, 50_000, 73_000])
def test_a_full_disk_leaves_nothing(workspace: Workspace, cifar_folders: Path, limit: int) -> None:
    # A limit on the size of files fails in the same place as a full disk, and needs none.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            prepare(workspace, "cifar-fs", cifar_folders)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _names(workspace) == []


def test_a_disk_that_turns_out_full_when_flushed_leaves_nothing(
    workspace: Workspace, cifar_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(workspace, "cifar-fs", cifar_folders)
    assert _names(workspace) == []


def test_progress_ends_at_the_total(workspace: Workspace, cifar_folders: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare(workspace, "cifar-fs", cifar_folders, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(6, 24), (12, 24), (18, 24), (24, 24)]


def test_other_pixels_than_the_cards_fingerprint_are_refused(workspace: Workspace, cifar_folders: Path) -> None:
    card = workspace.data / "cards" / "cifar-fs.toml"
    card.write_text(f'fingerprint = "{"0" * 64}"\n' + card.read_text())
    with pytest.raises(DataError, match=r"the images have fingerprint [0-9a-f]{64}, expected 0{64}"):
        prepare(workspace, "cifar-fs", cifar_folders)
    assert _names(workspace) == []


def test_a_card_of_ones_own_is_read_from_class_folders(workspace: Workspace, cifar_folders: Path) -> None:
    card = workspace.data / "cards" / "cifar-fs.toml"
    (workspace.data / "cards" / "mine.toml").write_text(card.read_text().replace('"cifar-fs"', '"mine"'))
    seen: list[str] = []
    store = prepare(workspace, "mine", cifar_folders / "cifar100" / "data", announce=seen.append)
    np.testing.assert_array_equal(store.images, prepare(workspace, "cifar-fs", cifar_folders).images)
    assert seen == ["class folders"]


def test_a_prepared_dataset_needs_no_right_to_write(workspace: Workspace, cifar_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = prepare(workspace, "cifar-fs", cifar_folders)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert prepare(workspace, "cifar-fs").fingerprint == open_store(workspace, "cifar-fs").fingerprint == store.fingerprint
