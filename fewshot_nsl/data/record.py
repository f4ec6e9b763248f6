"""A prepared store's own `card.toml`: what was written, from what, by which version, and the checksums to prove it."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewshot_nsl.errors import DataError

RECORD_FILE = "card.toml"
IMAGES_FILE = "images.npy"
INDEX_FILE = "index.parquet"
SOURCES_FILE = "sources.parquet"


class SplitSize(BaseModel):
    """How much of a store one split takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: int
    images: int


class StoreRecord(BaseModel):
    """The content of `data/<name>/card.toml`; frozen, and no field beyond these is accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    images: int
    image_size: int
    channels: int
    mean: tuple[float, ...] = Field(description="per channel over the train split, 0-255")
    std: tuple[float, ...] = Field(description="per channel over the train split, in pixel units")
    augmentations: tuple[str, ...]
    licence: str
    layout: str = Field(description="the layout that was read")
    package_version: str = Field(description="the fewshot-nsl that wrote the store")
    splits: Mapping[str, SplitSize]
    checksums: Mapping[str, str] = Field(description="file name -> SHA-256")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, h, w, c) of the store's images."""
        return self.images, self.image_size, self.image_size, self.channels

    def write(self, folder: Path) -> None:
        """Write the record into the store's folder."""
        (folder / RECORD_FILE).write_text(_toml(self.model_dump(mode="json")), encoding="utf-8")


def read_record(folder: Path) -> StoreRecord:
    """The record of the store in `folder`.

    Raises:
        DataError: it is missing, no TOML, or has a wrong field.
    """
    path = folder / RECORD_FILE
    try:
        return StoreRecord.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise damaged(path, f"cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise damaged(path, f"has a wrong field '{'.'.join(map(str, first['loc']))}': {first['msg']}") from error


def damaged(path: Path, what: str) -> DataError:
    """The refusal of a store because of its file `path`, with the way to mend it."""
    reason = " ".join(what.split())  # some libraries tell in several lines
    return DataError(f"{path} {reason}; run: fewshot-nsl data prepare {path.parent.name} --force [--from PATH]")


def _toml(values: Mapping[str, object], table: str = "") -> str:
    """TOML text of strings, numbers, lists of these, and nested mappings; the standard library reads TOML but does not write it."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    nested = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    # A JSON string, number or list of them is TOML too; keys are quoted, since a file name holds a dot.
    lines = [f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in plain.items()]
    header = f"\n[{table}]\n" if table and plain else ""
    tables = [_toml(value, f"{table}.{_key(key)}" if table else _key(key)) for key, value in nested.items()]
    return header + "".join(lines) + "".join(tables)


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() and key.isascii() else json.dumps(key)
