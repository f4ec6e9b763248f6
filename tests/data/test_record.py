from collections.abc import Callable
from pathlib import Path

import pytest

from fewshot_nsl.data.record import SplitSize, StoreRecord, read_record
from fewshot_nsl.errors import DataError

RECORD = StoreRecord(
    name="mine",
    title='A "quoted" title\nwith \\ and é',
    fingerprint="0" * 64,
    images=3,
    image_size=8,
    channels=1,
    mean=(0.1,),
    std=(1e-30,),
    augmentations=(),
    licence="",
    layout="folders",
    package_version="0",
    splits={"train": SplitSize(classes=1, images=3)},
    checksums={"images.npy": "a", "odd name": "b"},
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    RECORD.write(tmp_path)
    assert read_record(tmp_path) == RECORD


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("images = 3", 'images = "many"', r"card.toml has a wrong field 'images': "),
        ("[splits.train]\nclasses = 1", "[splits.train]\nclasses = []", r"card.toml has a wrong field 'splits.train.classes'"),
        ("images = 3", "images", r"card.toml cannot be read: "),
        ("images = 3", "images = 3\ncolour = 1", r"card.toml has a wrong field 'colour'"),
    ],
)
def test_a_damaged_record_names_file_and_field(
    tmp_path: Path, edit: Callable[[Path, str, str], None], old: str, new: str, message: str
) -> None:
    RECORD.write(tmp_path)
    edit(tmp_path / "card.toml", old, new)
    with pytest.raises(DataError, match=message):
        read_record(tmp_path)
