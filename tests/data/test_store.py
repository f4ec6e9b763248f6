import multiprocessing
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fewshot_nsl.data import ImageStore, open_store, prepare, prepared_stores
from fewshot_nsl.data.fingerprint import pixel_digest
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


@pytest.fixture
def store(workspace: Workspace, cifar_archive: Path) -> ImageStore:
    return prepare(workspace, "cifar-fs", cifar_archive)


def test_rows_are_in_canonical_order(store: ImageStore) -> None:
    assert store.classes == ("apple", "pear", "bear", "road")  # by split, then by name; the card says pear first
    assert store.splits == {"train": range(12), "val": range(12, 18), "test": range(18, 24)}
    assert store.labels.tolist() == sorted([0, 1, 2, 3] * 6)
    digests = [pixel_digest(image) for image in store.images]
    for start in range(0, 24, 6):
        assert digests[start : start + 6] == sorted(digests[start : start + 6])


def test_split_labels_mark_what_is_outside(store: ImageStore) -> None:
    assert store.split_labels("val").tolist() == [-1] * 12 + [2] * 6 + [-1] * 6
    with pytest.raises(DataError, match="cifar-fs has no split 'dev'; there are: train, val, test"):
        store.split_labels("dev")


def test_statistics_are_of_the_train_split(store: ImageStore) -> None:
    assert store.mean == pytest.approx(store.images[:12].mean(axis=(0, 1, 2)))
    assert store.std == pytest.approx(store.images[:12].std(axis=(0, 1, 2)))


def test_images_are_a_read_only_map(store: ImageStore) -> None:
    assert isinstance(store.images, np.memmap)
    assert (store.images.shape, store.images.dtype) == ((24, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0


def test_every_image_can_be_traced_to_its_source(store: ImageStore, pixels: Mapping[str, np.ndarray]) -> None:
    sources = pd.read_parquet(store.root / "sources.parquet")
    assert sources["row"].tolist() == list(range(24))
    assert sources["source"].str.fullmatch(r"(train|test)/\d+\.png").all()
    known = {pixel_digest(image).hex() for images in pixels.values() for image in images}
    assert set(sources["sha256"]) == known


def _sum_of(store: ImageStore) -> int:
    return int(store.images.sum())


def test_a_store_travels_to_another_process_without_its_pixels(store: ImageStore) -> None:
    assert len(pickle.dumps(store)) < 1000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_sum_of, (store,)) == _sum_of(store)


def test_a_store_that_was_replaced_meanwhile_is_refused(
    workspace: Workspace, store: ImageStore, cifar_folders: Path, pixels: Mapping[str, np.ndarray]
) -> None:
    sent = pickle.dumps(store)
    shutil.copy(cifar_folders / "cifar100" / "data" / "bear" / "0.png", cifar_folders / "cifar100" / "data" / "bear" / "1.png")
    prepare(workspace, "cifar-fs", cifar_folders, force=True)
    with pytest.raises(DataError, match="was replaced while in use"):
        pickle.loads(sent)
    assert _sum_of(store) == sum(int(images.sum()) for images in pixels.values())  # the old one stays readable where it was open


def test_what_is_not_prepared_names_the_command(workspace: Workspace, store: ImageStore) -> None:
    for name in ("mini-imagenet", "../data/cifar-fs", "cards", ""):
        with pytest.raises(DataError, match=rf"{name} is not prepared in .*prepared: cifar-fs\); run: fewshot-nsl data prepare {name}"):
            open_store(workspace, name)
    assert prepared_stores(workspace) == [store.name]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _other_shape(path: Path) -> None:
    np.save(path, np.zeros((24, 16, 16, 3), dtype=np.uint8))


def _objects(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


def _reversed(path: Path) -> None:
    table = pd.read_parquet(path)[::-1]
    table.assign(row=range(len(table))).to_parquet(path, index=False)


def _shuffled_classes(path: Path) -> None:
    table = pd.read_parquet(path)
    table.loc[[0, 6], "class"] = table.loc[[6, 0], "class"].to_numpy()
    table.to_parquet(path, index=False)


def _row_lost(path: Path) -> None:
    pd.read_parquet(path)[1:].to_parquet(path, index=False)


def _column_lost(path: Path) -> None:
    pd.read_parquet(path)[["row", "class"]].to_parquet(path, index=False)


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("images.npy", Path.unlink, r"images.npy cannot be read"),
        ("images.npy", _cut, r"images.npy cannot be read"),
        ("images.npy", _objects, r"images.npy cannot be read"),
        ("images.npy", _other_shape, r"images.npy holds uint8 \[24, 16, 16, 3\], expected uint8 \[24, 32, 32, 3\]"),
        ("index.parquet", Path.unlink, r"index.parquet cannot be read"),
        ("index.parquet", _cut, r"index.parquet cannot be read"),
        ("index.parquet", _reversed, r"index.parquet has splits .*in this order"),
        ("index.parquet", _shuffled_classes, r"index.parquet has 4 classes, expected 4, each in one run of rows"),
        ("index.parquet", _row_lost, r"index.parquet has a column 'row' that does not count"),
        ("index.parquet", _column_lost, r"index.parquet has columns row, class, expected row, class, split"),
        ("card.toml", _cut, r"card.toml"),
    ],
)
def test_damage_that_can_be_seen_without_reading_pixels(
    workspace: Workspace, store: ImageStore, file: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(store.root / file)
    with pytest.raises(DataError, match=message) as caught:
        open_store(workspace, "cifar-fs")
    assert str(caught.value).endswith("run: fewshot-nsl data prepare cifar-fs --force [--from PATH]")
    assert "\n" not in str(caught.value)


def test_a_renamed_folder_is_no_other_dataset(workspace: Workspace, store: ImageStore) -> None:
    store.root.rename(workspace.data / "mini-imagenet")
    with pytest.raises(DataError, match=r"card.toml is of the dataset cifar-fs"):
        open_store(workspace, "mini-imagenet")
