import io
import tarfile
import zipfile
from pathlib import Path

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
    return _zip(folder / "a.zip", files) if kind == "zip" else _tar(folder / f"a.{kind}", "w:gz", files)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


KINDS = ("zip", "tgz", "tar.gz")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_unpacks_to_the_same_files_once(tmp_path: Path, kind: str) -> None:
    archive = _make(kind, tmp_path, FILES)
    folder = unpack(archive, tmp_path / "out")
    assert _files(folder) == FILES
    archive.write_bytes(b"gone")
    assert _files(unpack(archive, tmp_path / "out")) == FILES


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_cut_anywhere_leaves_nothing(tmp_path: Path, kind: str) -> None:
    archive = _make(kind, tmp_path, FILES)
    content = archive.read_bytes()
    for place in [*range(0, len(content), 7), len(content) - 1]:
        archive.write_bytes(content[:place])
        with pytest.raises(DataError, match=rf"a\.{kind} cannot be unpacked \(.*\); delete it, then fetch it again"):
            unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", archive.name]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../outside.txt", "birds/../../outside.txt"])
def test_nothing_leads_out_of_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    archive = _make(kind, tmp_path, {**FILES, name: b"!"})
    with pytest.raises(DataError, match="outside"):
        unpack(archive, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", archive.name]


def test_no_link_leads_out_of_the_folder(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="link"):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_unpacks_without_end_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_EXTRA", 0)
    archive = _make(kind, tmp_path, {"zeros": bytes(10**6)})
    with pytest.raises(DataError, match="unpacks to more than"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
