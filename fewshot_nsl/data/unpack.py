"""Unpacking somebody else's archive: into one folder, never beyond it, and not without end."""

import os
import shutil
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from fewshot_nsl.data.aside import folder_moved_into_place, only_writer
from fewshot_nsl.errors import DataError

_CHUNK = 2**20

_MOST_GROWTH, _MOST_EXTRA = 100, 2**30
"""An archive may unpack to this many times its size, and so many bytes: far above any of images, far below what fills a disk."""


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a .zip or a compressed .tar into `folder`, which appears when it is whole; one that is there already is left as it is.

    Raises:
        DataError: the archive is damaged, leads out of the folder, holds more than files and folders, or unpacks without end.
    """
    with only_writer(folder):
        if not folder.exists():
            with folder_moved_into_place(folder) as aside:
                try:
                    (_unzip if zipfile.is_zipfile(archive) else _untar)(archive, aside)
                except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                    reason = " ".join(str(error).split())
                    raise DataError(f"{archive} cannot be unpacked ({reason}); delete it, then fetch it again") from error
                if sys.platform != "win32":
                    os.sync()  # all at once: file by file it takes minutes
    return folder


def _untar(archive: Path, folder: Path) -> None:
    size = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            size += member.size
            _check_growth(archive, size)
            tar.extract(member, folder, filter="data")  # refuses what leads out of the folder, and devices
        while tar.fileobj is not None and tar.fileobj.read(_CHUNK):  # to its very end, where the checksum is: a cut one may look whole
            pass


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        _check_growth(archive, sum(member.file_size for member in packed.infolist()))
        for member in packed.infolist():
            target = folder / member.filename
            if not target.resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{archive} leads out of its folder, to {member.filename}; it was not unpacked: fetch it elsewhere")
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with packed.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)


def _check_growth(archive: Path, size: int) -> None:
    most = _MOST_GROWTH * archive.stat().st_size + _MOST_EXTRA
    if size > most:
        raise DataError(f"{archive} unpacks to more than {most} bytes, as no archive of images does; fetch it elsewhere")
