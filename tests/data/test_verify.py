from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_nsl.data import ImageStore, prepare, verify
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


@pytest.fixture
def store(workspace: Workspace, cifar_folders: Path) -> ImageStore:
    return prepare(workspace, "cifar-fs", cifar_folders)


def _flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_whole_store_passes_and_tells_how_far_it_is(workspace: Workspace, store: ImageStore) -> None:
    seen: list[tuple[int, int]] = []
    assert verify(workspace, "cifar-fs", lambda done, total: seen.append((done, total))).fingerprint == store.fingerprint
    assert seen[-1] == (24, 24)


@pytest.mark.parametrize("row", [0, 13, 23])
def test_a_flipped_bit_of_a_pixel_names_the_image(workspace: Workspace, store: ImageStore, row: int) -> None:
    _flip(store.root / "images.npy", 128 + row * 32 * 32 * 3 + 7)
    name = store.classes[store.labels[row]]
    with pytest.raises(
        DataError, match=rf"images.npy is damaged in row {row} \(class {name}, read from data/{name}/\d.png\); run: .* --force"
    ):
        verify(workspace, "cifar-fs")


def test_a_flipped_bit_of_a_table_names_the_file(workspace: Workspace, store: ImageStore) -> None:
    _flip(store.root / "sources.parquet", 60)
    with pytest.raises(DataError, match=r"sources.parquet does not have the checksum that card.toml gives"):
        verify(workspace, "cifar-fs")


def test_a_change_of_the_header_of_the_images_is_seen(workspace: Workspace, store: ImageStore) -> None:
    path = store.root / "images.npy"
    path.write_bytes(path.read_bytes().replace(b"}  ", b"} \t", 1))
    with pytest.raises(DataError, match=r"images.npy does not have the checksum"):
        verify(workspace, "cifar-fs")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('fingerprint = "', 'fingerprint = "0000', r"card.toml has a wrong field 'fingerprint'"),
        ("mean = [", "mean = [1", r"card.toml gives mean"),
    ],
)
def test_a_changed_record_is_seen(
    workspace: Workspace, store: ImageStore, edit: Callable[[Path, str, str], None], old: str, new: str, message: str
) -> None:
    edit(store.root / "card.toml", old, new)
    with pytest.raises(DataError, match=message):
        verify(workspace, "cifar-fs")


def test_another_fingerprint_in_the_record_is_seen(workspace: Workspace, store: ImageStore, edit: Callable[[Path, str, str], None]) -> None:
    edit(store.root / "card.toml", store.fingerprint, "0" * 64)
    with pytest.raises(DataError, match=rf"card.toml gives fingerprint 0{{64}}, but the images have {store.fingerprint}"):
        verify(workspace, "cifar-fs")
