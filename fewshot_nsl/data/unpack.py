"""Unpacking somebody else's archive: into one folder, never beyond it, and not without end."""

import gzip
import os
import posixpath
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from io import BufferedIOBase
from pathlib import Path, PurePosixPath, PureWindowsPath
from stat import S_IFDIR, S_IFMT, S_IFREG

from fewshot_nsl.data.aside import folder_moved_into_place, only_writer
from fewshot_nsl.errors import DataError

_CHUNK = 2**20
_BLOCK = 4096
"""Bytes that even an empty file takes on a disk."""

_MOST_GROWTH, _MOST_EXTRA = 100, 2**30
"""An archive may unpack to this many times its size, and so many bytes: far above any of images, far below what fills a disk."""

_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    RuntimeError,  # encrypted, or compressed in a way that Python does not know
    FileExistsError,  # a name is both a file and a folder
    IsADirectoryError,
    NotADirectoryError,
)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a .zip, .tar, .tar.gz or .tgz into `folder`, which appears when it is whole; one that is there already is left as it is.

    A link to a file that came before it is unpacked as a copy; other links, and all else that is neither file nor folder, are refused.

    Raises:
        DataError: the archive is damaged, leads out of the folder, holds more than files and folders, or unpacks to more than fits.
    """
    with only_writer(folder):
        if folder.exists():
            return folder
        # By name: a .tar may end with a .zip that it holds, and would pass for one.
        fill = next((fill for suffixes, fill in _KINDS.items() if archive.name.lower().endswith(suffixes)), None)
        if fill is None:
            raise DataError(f"{archive} is no archive that is known; expected {', '.join(sum(_KINDS, ()))}")
        with folder_moved_into_place(folder) as aside:
            try:
                fill(archive, _Filled(archive, aside))
            except _DAMAGED as error:
                reason = " ".join(str(error).split())
                raise DataError(f"{archive} cannot be unpacked ({reason}); delete it, then fetch it again") from error
            if sys.platform != "win32":
                os.sync()  # all at once: file by file it takes minutes
    return folder


class _Filled:
    """The folder that is being filled, and what may still go into it."""

    def __init__(self, archive: Path, folder: Path) -> None:
        self._archive, self._folder, self._size = archive, folder, 0
        self._most = _MOST_GROWTH * archive.stat().st_size + _MOST_EXTRA
        self._free = shutil.disk_usage(folder).free

    def add_folder(self, name: str) -> None:
        self._count(0)
        self._inside(name).mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, size: int, read: Callable[[int], bytes]) -> None:
        self._count(size)
        path = self._inside(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while chunk := read(_CHUNK):
                file.write(chunk)

    def add_copy(self, name: str, original: str) -> None:
        # Followed now and never made, no link can be followed to elsewhere later.
        path = self._inside(original)
        if not path.is_file():
            raise DataError(f"{self._archive}: {name} is a link to {original}, no file that came before it; unpack it by hand")
        with path.open("rb") as source:
            self.add_file(name, path.stat().st_size, source.read)

    def refuse(self, name: str) -> None:
        raise DataError(f"{self._archive}: {name} is neither file nor folder; it was not unpacked: fetch it elsewhere")

    def _inside(self, name: str) -> Path:
        seen = PureWindowsPath(name)  # which knows both kinds of separator
        if seen.anchor or ".." in seen.parts:
            raise DataError(f"{self._archive} leads out of its folder, to {name}; it was not unpacked: fetch it elsewhere")
        return self._folder / PurePosixPath(name)

    def _count(self, size: int) -> None:
        if size < 0:
            raise ValueError("a member's size is negative")
        self._size += max(size, _BLOCK)
        if self._size > self._most:
            raise DataError(f"{self._archive} unpacks to more than {self._most} bytes, as no archive of images does; fetch it elsewhere")
        if self._size > self._free:
            raise DataError(f"{self._archive} unpacks to more than the {self._free} bytes that are free; free some, then try again")


def _untar(archive: Path, filled: _Filled) -> None:
    with archive.open("rb") as file:
        _untar_stream(file, filled)


def _untar_gz(archive: Path, filled: _Filled) -> None:
    with gzip.open(archive) as file:
        _untar_stream(file, filled)


def _untar_stream(file: BufferedIOBase, filled: _Filled) -> None:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isdir():
                filled.add_folder(member.name)
            elif member.islnk():
                filled.add_copy(member.name, member.linkname)
            elif member.issym():
                filled.add_copy(member.name, posixpath.normpath(PurePosixPath(member.name).parent / member.linkname))
            elif member.isreg() and (source := tar.extractfile(member)):
                filled.add_file(member.name, member.size, source.read)
            else:
                filled.refuse(member.name)
        file.seek(tar.offset)  # tarfile takes the end of a cut file, or a damaged header, for the end of the archive
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off before its end mark")
        while file.read(_CHUNK):  # to the very end, where gzip keeps its checksum
            pass


def _unzip(archive: Path, filled: _Filled) -> None:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError("it is compressed in an unusual way")  # whose damage Python may not know how to tell
            if S_IFMT(member.external_attr >> 16) not in (0, S_IFREG, S_IFDIR):
                filled.refuse(member.filename)
            if member.is_dir():
                filled.add_folder(member.filename)
            else:
                with packed.open(member) as source:
                    filled.add_file(member.filename, member.file_size, source.read)


_KINDS = {(".zip",): _unzip, (".tar.gz", ".tgz"): _untar_gz, (".tar",): _untar}
