import builtins
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from fewshot_nsl.data import load_card, prepare
from fewshot_nsl.data.layouts.hdf5 import HDF5
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

PEAR, APPLE, BEAR, ROAD = "n02110341", "n01532829", "n01855672", "n01930112"
IMAGES = np.zeros((6, 84, 84, 3), dtype=np.uint8)


@pytest.fixture
def folder(hdf5_files: Path) -> Path:
    """What holds the six files."""
    return hdf5_files / "miniimagenet"


def _outside(file: h5py.File) -> Path:
    """Another file, in which there are images of the right shape."""
    path = Path(file.filename).parent.parent / "outside.hdf5"
    with h5py.File(path, "w") as other:
        other[f"datasets/{BEAR}"] = IMAGES
    return path


def _external_link(file: h5py.File) -> None:
    del file["datasets"][BEAR]
    file["datasets"][BEAR] = h5py.ExternalLink(_outside(file), f"/datasets/{BEAR}")


def _external_group(file: h5py.File) -> None:
    del file["datasets"]
    file["datasets"] = h5py.ExternalLink(_outside(file), "/datasets")


def _soft_link(file: h5py.File) -> None:
    file["elsewhere"] = IMAGES
    del file["datasets"][BEAR]
    file["datasets"][BEAR] = h5py.SoftLink("/elsewhere")


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=IMAGES.shape, dtype=np.uint8)
    layout[:] = h5py.VirtualSource(_outside(file), f"datasets/{BEAR}", shape=IMAGES.shape)
    del file["datasets"][BEAR]
    file["datasets"].create_virtual_dataset(BEAR, layout)


def _external_bytes(file: h5py.File) -> None:
    secret = _outside(file).with_name("secret")
    secret.write_bytes(IMAGES.tobytes())
    del file["datasets"][BEAR]
    file["datasets"].create_dataset(BEAR, IMAGES.shape, np.uint8, external=[(str(secret), 0, IMAGES.nbytes)])


def _group_instead(file: h5py.File) -> None:
    del file["datasets"][BEAR]
    file["datasets"].create_group(BEAR)


def _no_class(file: h5py.File) -> None:
    del file["datasets"][BEAR]


def _no_group(file: h5py.File) -> None:
    del file["datasets"]


def _array_as_group(file: h5py.File) -> None:
    del file["datasets"]
    file["datasets"] = IMAGES


@pytest.mark.parametrize(
    "change",
    [
        _external_link,
        _external_group,
        _soft_link,
        _virtual,
        _external_bytes,
        _group_instead,
        _no_class,
        _no_group,
        _array_as_group,
    ],
)
def test_images_that_do_not_lie_in_the_file_itself_are_refused(
    imagenet: Workspace, folder: Path, change: Callable[[h5py.File], None]
) -> None:
    with h5py.File(folder / "val_data.hdf5", "r+") as file:
        change(file)
    with pytest.raises(DataError, match=rf"val_data.hdf5 has no images of its own in datasets/{BEAR}; get a fresh copy"):
        prepare(imagenet, "mini-imagenet", folder)
    assert not (imagenet.data / "mini-imagenet").exists()


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (IMAGES.astype(np.float32), r"float32 \[6, 84, 84, 3\]"),
        (IMAGES.astype(np.int8), r"int8 \[6, 84, 84, 3\]"),
        (IMAGES[:, :32, :32], r"uint8 \[6, 32, 32, 3\]"),
        (IMAGES[0], r"uint8 \[84, 84, 3\]"),
        (np.uint8(3), r"uint8 \[\]"),
        (h5py.Empty(np.uint8), r"uint8 \[\]"),
        (np.array([b"text"] * 6), r"\|S4 \[6\]"),
    ],
)
def test_other_shapes_and_types_are_refused(imagenet: Workspace, folder: Path, array: object, got: str) -> None:
    with h5py.File(folder / "val_data.hdf5", "r+") as file:
        del file["datasets"][BEAR]
        file["datasets"][BEAR] = array
    with pytest.raises(DataError, match=rf"val_data.hdf5: '{BEAR}' holds {got}, expected uint8 \[n, 84, 84, 3\]"):
        prepare(imagenet, "mini-imagenet", folder)


def test_too_few_images_are_counted(imagenet: Workspace, folder: Path) -> None:
    with h5py.File(folder / "test_data.hdf5", "r+") as file:
        del file["datasets"][ROAD]
        file["datasets"][ROAD] = IMAGES[:5]
    with pytest.raises(DataError, match=rf"the torchmeta HDF5 layout has 5 in {ROAD}"):
        prepare(imagenet, "mini-imagenet", folder)


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_hdf5_is_refused(imagenet: Workspace, folder: Path, content: bytes) -> None:
    (folder / "test_data.hdf5").write_bytes(content)
    with pytest.raises(DataError, match=r"test_data.hdf5 is no whole HDF5 file \(.*get a fresh copy"):
        prepare(imagenet, "mini-imagenet", folder)


def test_a_cut_file_is_refused(imagenet: Workspace, folder: Path) -> None:
    path = folder / "train_data.hdf5"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"train_data.hdf5 is no whole HDF5 file \(.*truncated"):
        prepare(imagenet, "mini-imagenet", folder)


@pytest.mark.parametrize("part", ["chunk", "group", "names", "array"])
def test_damage_is_refused_wherever_it_shows(imagenet: Workspace, folder: Path, part: str) -> None:
    path = folder / "val_data.hdf5"
    with h5py.File(path, "w") as file:
        array = file.create_dataset(f"datasets/{BEAR}", data=IMAGES, chunks=(1, 84, 84, 3), compression="gzip", fletcher32=True)
        places = {
            "chunk": array.id.get_chunk_info(3).byte_offset + 5,
            "group": h5py.h5o.get_info(file["datasets"].id).addr,
            "array": h5py.h5o.get_info(array.id).addr,
        }
    content = bytearray(path.read_bytes())
    content[places[part] if part in places else content.index(b"HEAP")] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"val_data.hdf5 is no whole HDF5 file \(.*get a fresh copy"):
        prepare(imagenet, "mini-imagenet", folder)
    assert not (imagenet.data / "mini-imagenet").exists()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (b"", "val_labels.json is no JSON"),
        (b'["n01855672"', "val_labels.json is no JSON"),
        (b'["\xff"]', "val_labels.json is no JSON"),
        (b"[" * 100_000, "val_labels.json is no JSON"),
        (b'{"n01855672": 0}', "val_labels.json is no list of classes"),
        (b"[1]", "val_labels.json is no list of classes"),
        (b"[]", f"split 'val' has 0 classes .*missing: {BEAR}"),
        *(
            (
                json.dumps([BEAR, name]).encode(),
                rf"val_labels.json names the class {re.escape(repr(name))}, which the card .* not have in 'val'",
            )
            for name in (ROAD, "../datasets/n01855672", ".", "/elsewhere/n01855672", "", "a\0b", "\ud800")
        ),
    ],
)
def test_wrong_labels_are_refused(imagenet: Workspace, folder: Path, labels: bytes, message: str) -> None:
    (folder / "val_labels.json").write_bytes(labels)
    with pytest.raises(DataError, match=message):
        prepare(imagenet, "mini-imagenet", folder)


def test_all_missing_files_are_named(imagenet: Workspace, folder: Path) -> None:
    (folder / "val_labels.json").unlink()
    (folder / "test_data.hdf5").unlink()
    with pytest.raises(DataError, match=r"miniimagenet has no val_labels.json, test_data.hdf5; to get mini-imagenet: ask a friend"):
        prepare(imagenet, "mini-imagenet", folder)


def test_a_class_is_read_when_it_is_loaded(imagenet: Workspace, folder: Path, photographs: Mapping[str, np.ndarray]) -> None:
    source = HDF5.read(load_card(imagenet, "mini-imagenet"), folder)
    assert {(each.split, each.name) for each in source.classes} == {("train", PEAR), ("train", APPLE), ("val", BEAR), ("test", ROAD)}
    assert source.classes[0].origins == tuple(f"train_data.hdf5#{source.classes[0].name}/{i}" for i in range(6))
    for each in source.classes:
        np.testing.assert_array_equal(each.load(), photographs[each.name])
    (folder / "test_data.hdf5").unlink()
    with pytest.raises(DataError, match=r"test_data.hdf5 is no whole HDF5 file"):
        source.classes[-1].load()


def test_without_h5py_it_says_what_to_install(imagenet: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Sequence[object]) -> object:
        if name == "h5py":
            raise ImportError("No module named 'h5py'")
        return real(name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"train_data.hdf5 is HDF5, which h5py reads; run: pip install h5py"):
        prepare(imagenet, "mini-imagenet", folder)


def test_the_labels_of_torchmeta_need_no_order(imagenet: Workspace, folder: Path) -> None:
    before = prepare(imagenet, "mini-imagenet", folder).fingerprint
    (folder / "train_labels.json").write_text(json.dumps([PEAR, APPLE][::-1]), encoding="utf-8")
    assert prepare(imagenet, "mini-imagenet", folder, force=True).fingerprint == before
