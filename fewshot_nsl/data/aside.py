"""A folder that is written aside and then moved into place, by one process at a time."""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Hold the lock on writing the folder `target`; a second process waits here until the first is done or dead.

    What a killed process left behind is put right first: a folder half written is removed, one that was being replaced is put back.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("ab") as file:
        _wait_for_lock(file)  # the system lets go of it when the file is closed, also by kill -9
        replaced = _replaced(target)
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        for leftover in target.parent.glob(f".{target.name}-*"):
            # The pattern keeps `mini` from taking folders of `mini-imagenet`.
            if leftover == replaced or re.fullmatch(rf"\.{re.escape(target.name)}-[0-9a-f]{{8}}", leftover.name):
                shutil.rmtree(leftover)
        yield


@contextmanager
def folder_moved_into_place(target: Path) -> Iterator[Path]:
    """An empty folder beside `target` which, on success, takes its place; on failure it is removed and `target` is as it was.

    To be used while `only_writer(target)` is held. Files must have been flushed by whoever wrote them.
    """
    aside = target.parent / f".{target.name}-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        yield aside
        _flush_folder(aside)
        if target.exists():
            # No portable call swaps two folders; were we killed between these two lines, `only_writer` would put the old one back.
            target.rename(_replaced(target))
        aside.rename(target)
        _flush_folder(target.parent)
    finally:
        if not target.exists() and _replaced(target).exists():
            _replaced(target).rename(target)
        for leftover in (aside, _replaced(target)):
            if leftover.exists():
                shutil.rmtree(leftover)


def _replaced(target: Path) -> Path:
    return target.parent / f".{target.name}-replaced"


def _wait_for_lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX)


def _flush_folder(folder: Path) -> None:
    """Make the names inside `folder` survive a power cut, where the system can (Windows cannot open a folder)."""
    if sys.platform != "win32":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
