"""One file of a dataset, fetched."""

from pydantic import BaseModel, ConfigDict, Field


class Download(BaseModel):
    """One file of a card's `[[downloads]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    file: str
    checksum: str | None = Field(default=None)
    size: int | None = None
    unpack: bool = False
