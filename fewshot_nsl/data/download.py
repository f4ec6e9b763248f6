"""One file fetched over HTTP: whole, checked, and going on where an earlier attempt was interrupted."""

import hashlib
import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from fewshot_nsl.data.aside import only_writer
from fewshot_nsl.data.part import BrokenOff, Part, Progress
from fewshot_nsl.errors import DataError


class Download(BaseModel):
    """One file of a card's `[[downloads]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[A-Za-z0-9][!-~]*$")
    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="name to save it as")
    checksum: str | None = Field(default=None, pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")
    size: int | None = Field(default=None, gt=0, description="bytes")
    unpack: bool = Field(default=False, description="whether images are read from the unpacked archive")


def fetch(
    download: Download,
    folder: Path,
    progress: Progress | None = None,
    *,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """The file `folder/<download.file>`, fetched unless it is there already. One process at a time fetches it; others wait.

    What has come lies in `folder/.<file>.part` until it is whole and right, so that a later call, also after a kill, goes on from there.

    Args:
        download: what.
        folder: where to; made if it is not there.
        progress: called with bytes done and in all (None where the server does not say).
        attempts: to make, when connections break off, before giving up; counted anew whenever more has come than ever before.
            Where nothing answers at all, the first is the last.
        pause: seconds before the second attempt; each later pause is longer by as much.
        timeout: seconds without a byte after which a connection counts as broken off.

    Raises:
        DataError: no connection, no such file there, or not the size or checksum that is expected.
    """
    target = folder / download.file
    with only_writer(target):
        if target.is_file() and _wrong(download, target) is None:
            return target
        part = Part(target, download.url, download.size, checked=download.checksum is not None)
        resumed = _complete(download, part, progress, attempts, pause, timeout)
        wrong = _wrong(download, part.path)
        if wrong and resumed:  # one made of several pieces gets another chance, from the start
            part.forget()
            _complete(download, part, progress, attempts, pause, timeout)
            wrong = _wrong(download, part.path)
        if wrong:
            part.forget()
            raise DataError(f"{download.url}: {wrong}; what came was thrown away: try again later, or fetch it by hand")
        with part.path.open("rb+") as file:
            os.fsync(file.fileno())
        part.path.replace(target)
        part.forget()
    return target


def _complete(download: Download, part: Part, progress: Progress | None, attempts: int, pause: float, timeout: float) -> bool:
    """Fetch all that is missing; whether there was something before."""
    failures, furthest = 0, part.size
    if furthest and furthest == download.size:
        return True  # an earlier call was killed before its last step
    while True:
        try:
            return part.fetch(progress, timeout)
        except BrokenOff as error:
            failures = failures + 1 if part.size <= furthest else 1
            furthest = max(furthest, part.size)
            if failures == attempts or not part.answered:
                of = f" of {part.total}" if part.total else ""
                kept = (
                    f"; the {part.size}{of} bytes that came are kept: run the same command again to go on from there" if part.size else ""
                )
                raise DataError(
                    f"{download.url} could not be fetched: {error}{kept or '; try again later'}, or fetch it by hand and give it with "
                    "--from PATH"
                ) from error
            time.sleep(pause * failures)


def _wrong(download: Download, path: Path) -> str | None:
    """What is not as expected, if anything."""
    size = path.stat().st_size
    if download.size not in (None, size):
        return f"{size} bytes came, expected {download.size}"
    if download.checksum is not None:
        kind, _, expected = download.checksum.partition(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if found != expected:
            return f"the file that came has {kind} {found}, expected {expected}"
    return None
