import pickle
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from fewshot_nsl.data import prepare
from fewshot_nsl.data.fingerprint import pixel_digest
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace, open_workspace


def test_both_layouts_give_the_same_store(
    workspace: Workspace, cifar_folders: Path, cifar_archive: Path, pixels: Mapping[str, np.ndarray]
) -> None:
    from_folders = prepare(workspace, "cifar-fs", cifar_folders)
    images = (from_folders.root / "images.npy").read_bytes()
    from_archive = prepare(workspace, "cifar-fs", cifar_archive, force=True)
    assert from_archive.fingerprint == from_folders.fingerprint
    assert (from_archive.root / "images.npy").read_bytes() == images
    assert (from_archive.mean, from_archive.std) == (from_folders.mean, from_folders.std)
    for label, name in enumerate(from_archive.classes):
        order = sorted(range(6), key=lambda i: pixel_digest(pixels[name][i]))
        np.testing.assert_array_equal(from_archive.images[from_archive.labels == label], pixels[name][order])


@pytest.mark.parametrize("inside", ["", "cifar100"])
def test_folders_are_found_from_outside_and_inside(workspace: Workspace, cifar_folders: Path, inside: str) -> None:
    assert len(prepare(workspace, "cifar-fs", cifar_folders / inside).labels) == 24


def test_the_archive_is_found_packed_and_unpacked(workspace: Workspace, cifar_archive: Path, tmp_path: Path) -> None:
    packed = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(cifar_archive / "cifar-100-python", "cifar-100-python")
    prints = {prepare(workspace, "cifar-fs", path, force=True).fingerprint for path in (packed, cifar_archive / "cifar-100-python")}
    assert len(prints) == 1


def test_a_broken_or_foreign_tar_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"broken.tar.gz is not a whole archive .*download it again"):
        prepare(workspace, "cifar-fs", broken)
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(broken, "something")
    with pytest.raises(DataError, match=r"other.tar has no file cifar-100-python/meta"):
        prepare(workspace, "cifar-fs", tmp_path / "other.tar")


def test_no_source_an_absent_one_and_an_unknown_layout_say_how_to_get_it(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give its images with --from PATH; .*ask a friend"):
        prepare(workspace, "cifar-fs")
    with pytest.raises(DataError, match=r"absent does not exist; .*ask a friend"):
        prepare(workspace, "cifar-fs", tmp_path / "absent")
    with pytest.raises(
        DataError, match=r"is in no layout known for cifar-fs: expected cifar100/ .*; or cifar-100-python.tar.*ask a friend"
    ):
        prepare(workspace, "cifar-fs", tmp_path)


def test_a_missing_image_is_counted(workspace: Workspace, cifar_folders: Path) -> None:
    (cifar_folders / "cifar100" / "data" / "bear" / "3.png").unlink()
    with pytest.raises(DataError, match=r"each class has 6 images, but the cifar100 folders layout has 5 in bear"):
        prepare(workspace, "cifar-fs", cifar_folders)


def test_a_missing_class_is_named(workspace: Workspace, cifar_folders: Path, edit: Callable[[Path, str, str], None]) -> None:
    edit(cifar_folders / "cifar100" / "splits" / "bertinetto" / "train.txt", "pear\n", "")
    with pytest.raises(DataError, match=r"split 'train' has 1 classes .*expected the card's 2; missing: pear; not in the card: none"):
        prepare(workspace, "cifar-fs", cifar_folders)


@pytest.mark.parametrize("name", ["bear", "../../../secret", "/etc"])
def test_a_split_file_names_no_class_but_the_cards(
    workspace: Workspace, cifar_folders: Path, edit: Callable[[Path, str, str], None], name: str
) -> None:
    edit(cifar_folders / "cifar100" / "splits" / "bertinetto" / "train.txt", "pear", name)
    with pytest.raises(DataError, match=rf"train.txt names the class '{name}', which the card of cifar-fs does not have in 'train'"):
        prepare(workspace, "cifar-fs", cifar_folders)


def test_windows_line_ends(workspace: Workspace, cifar_folders: Path) -> None:
    path = cifar_folders / "cifar100" / "splits" / "bertinetto" / "train.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert prepare(workspace, "cifar-fs", cifar_folders).classes == ("apple", "pear", "bear", "road")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (b"data", np.zeros((20, 12), dtype=np.uint8), r"'train' has no data of uint8 \[n, 3072\]"),
        (b"data", None, r"'train' has no data"),
        (b"fine_labels", [0], r"'train' has not one filename and one fine label"),
        (b"fine_labels", [1000] * 20, r"fine label, 0 to 99"),
        (b"filenames", "abc", r"has no list 'filenames'"),
    ],
)
def test_an_archive_of_other_shapes_is_refused(workspace: Workspace, cifar_archive: Path, key: bytes, value: object, message: str) -> None:
    path = cifar_archive / "cifar-100-python" / "train"
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(content | {key: value}, protocol=2))
    with pytest.raises(DataError, match=message):
        prepare(workspace, "cifar-fs", cifar_archive)


def test_an_archive_without_a_class_of_the_card(tmp_path: Path, cifar_archive: Path) -> None:
    with pytest.raises(DataError, match="has no class 'aquarium_fish'"):
        prepare(open_workspace(tmp_path), "cifar-fs", cifar_archive)


def test_a_hostile_archive_is_refused(workspace: Workspace, cifar_archive: Path) -> None:
    (cifar_archive / "cifar-100-python" / "meta").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"meta is a pickle that asks to run os.system"):
        prepare(workspace, "cifar-fs", cifar_archive)
    assert not (workspace.data / "cifar-fs").exists()
