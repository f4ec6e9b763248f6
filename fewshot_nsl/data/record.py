"""A prepared store's own `card.toml`: what was written, from what, by which version, and the checksums to prove it."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewshot_nsl.config import first_wrong_field
from fewshot_nsl.data.toml import to_toml
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
        (folder / RECORD_FILE).write_text(to_toml(self.model_dump(mode="json")), encoding="utf-8")


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
        raise damaged(path, f"has a wrong field {first_wrong_field(error)}") from error


def damaged(path: Path, what: str) -> DataError:
    """The refusal of a store because of its file `path`, with the way to mend it."""
    reason = " ".join(what.split())  # some libraries tell in several lines
    return DataError(f"{path} {reason}; run: fewshot-nsl data prepare {path.parent.name} --force [--from PATH]")
