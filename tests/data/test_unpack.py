import io
import random
import shutil
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewshot_nsl.data import unpack as module
from fewshot_nsl.data.unpack import unpack
from fewshot_nsl.errors import DataError

FILES = {"birds/001/a.jpg": b"one", "birds/002/b.jpg": b"two" * 1000}


def _tar(path: Path, mode: str, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("birds")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _make(kind: str, folder: Path, files: dict[str, bytes]) -> Path:
    return _zip(folder / "a.zip", files) if kind == "zip" else _tar(folder / f"a.{kind}", "w" if kind == "tar" else "w:gz", files)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS = ("zip", "tgz", "tar.gz", "tar")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_unpacks_to_the_same_files_once(tmp_path: Path, kind: str) -> None:
    archive = _make(kind, tmp_path, FILES)
    folder = unpack(archive, tmp_path / "out")
    assert _files(folder) == FILES
    archive.write_bytes(b"gone")
    assert _files(unpack(archive, tmp_path / "out")) == FILES


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar"])
def test_an_archive_cut_anywhere_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = _make(kind, tmp_path, FILES)
    content = archive.read_bytes()
    # A .tar ends with its first block of zeros, and has many.
    end, step = (len(content.rstrip(b"\0")) + 1, 128) if kind == "tar" else (len(content), 7)
    for place in [*range(0, end, step), end - 1]:
        archive.write_bytes(content[:place])
        with pytest.raises(DataError, match=rf"a\.{kind} cannot be unpacked \(.*\); delete it, then fetch it again"):
            unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", archive.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../outside.txt", "birds/../../outside.txt", "/outside.txt", "..\\outside.txt"])
def test_nothing_leads_out_of_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    archive = _make(kind, tmp_path, {**FILES, name: b"!"})
    with pytest.raises(DataError, match="outside"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", archive.name]


def _special(path: Path, kind: bytes, link: str) -> Path:
    _tar(path, "w", FILES)
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("birds/special")
        member.type, member.linkname = kind, link
        tar.addfile(member)
    return path


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../a.tar"),
        (tarfile.SYMTYPE, "001"),
        (tarfile.SYMTYPE, "nothing"),
        (tarfile.LNKTYPE, "../a.tar"),
        (tarfile.CHRTYPE, ""),
        (tarfile.FIFOTYPE, ""),
    ],
)
def test_only_files_and_folders_are_made(tmp_path: Path, kind: bytes, link: str) -> None:
    with pytest.raises(DataError, match=r"birds/special is|leads out of its folder"):
        unpack(_special(tmp_path / "a.tar", kind, link), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "a.tar"]


@pytest.mark.parametrize(("kind", "link"), [(tarfile.SYMTYPE, "001/a.jpg"), (tarfile.LNKTYPE, "birds/001/a.jpg")])
def test_a_link_inside_becomes_a_copy(tmp_path: Path, kind: bytes, link: str) -> None:
    folder = unpack(_special(tmp_path / "a.tar", kind, link), tmp_path / "out")
    assert _files(folder) == {**FILES, "birds/special": b"one"}
    assert not (folder / "birds" / "special").is_symlink()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="link is neither file nor folder"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_of_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a", b"a" * 100)
    with pytest.raises(DataError, match=r"a\.zip cannot be unpacked \(it is compressed in an unusual way\)"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = _zip(tmp_path / "inner.zip", FILES).read_bytes()
    assert _files(unpack(_tar(tmp_path / "a.tar", "w", {"inner.zip": inner}), tmp_path / "out")) == {"inner.zip": inner}


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar"])
def test_an_archive_with_a_flipped_bit_is_refused_or_gives_what_it_says(tmp_path: Path, kind: str) -> None:
    archive = _make(kind, tmp_path, FILES)
    content, rng = archive.read_bytes(), random.Random(0)
    for trial in range(200):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content.rstrip(b"\0")))] ^= 1 << rng.randrange(8)
        archive.write_bytes(damaged)
        with suppress(DataError):
            found = _files(unpack(archive, tmp_path / str(trial)))
            # A .tar has no checksum of contents, a .zip none of names; that of a .gz holds for all.
            assert kind != "tgz" or found == FILES
    assert not list(tmp_path.glob(".[0-9]*-*"))


def test_a_member_of_negative_size_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("backwards")
    member.size = -1024
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match="negative"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"a\.rar is no archive that is known; expected \.zip, \.tar\.gz, \.tgz, \.tar"):
        unpack(tmp_path / "a.rar", tmp_path / "out")


def test_more_than_fits_on_the_disk_is_refused_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5000))
    with pytest.raises(DataError, match="more than the 5000 bytes that are free"):
        unpack(_make("tgz", tmp_path, FILES), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_EXTRA", 0)
    archive = _make(kind, tmp_path, {"zeros": bytes(10**6)})
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
