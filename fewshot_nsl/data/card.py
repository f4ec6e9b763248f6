"""Cards: what a dataset is, said once in `data/cards/<name>.toml`: its classes, splits, sizes, licence and home."""

import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fewshot_nsl.config import first_wrong_field
from fewshot_nsl.data.download import Download
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

SPLITS = ("train", "val", "test")
"""Base, validation and novel classes, in the order in which a store keeps them."""

Augmentation = Literal["crop", "flip", "colour"]

TAKEN = ("cards", "downloads")
"""Folders in `data/` that hold no store."""

QUARTER_TURNS = ("rot000", "rot090", "rot180", "rot270")
"""Endings of the classes `<class>/<turn>` of a dataset whose card says `turns_of`: degrees, counterclockwise."""


class Card(BaseModel):
    """A dataset's description; frozen, and no field beyond these is accepted.

    A workspace's own card of the same name goes before the one that travels with the package.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    name: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    title: str
    image_size: int = Field(gt=0, description="height and width of a stored image, in pixels")
    channels: Literal[1, 3]
    images_per_class: int | None = Field(default=None, gt=0, description="absent where classes differ")
    images: int | None = Field(default=None, gt=0, description="in all, where classes differ and it is known")
    licence: str
    citation: str
    homepage: str
    how_to_get: str = Field(description="printed when the source is missing")
    augmentations: tuple[Augmentation, ...] = Field(description="changes of a training image that keep its label")
    fingerprint: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="the only store that is right, where there is one")
    downloads: tuple[Download, ...] = Field(default=(), description="what `data prepare NAME --download` fetches")
    splits: Mapping[str, tuple[str, ...]] = Field(description="split -> its class names")

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name in TAKEN:
            raise ValueError(f"data/{name} is something else; take another name")
        return name

    @field_validator("splits")
    @classmethod
    def _each_class_in_one_split(cls, splits: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        if set(splits) != set(SPLITS) or not all(splits.values()):
            got = ", ".join(f"{len(names)} in {split}" for split, names in splits.items())
            raise ValueError(f"expected classes in each of {', '.join(SPLITS)} and in nothing else, got {got or 'none'}")
        counts = Counter(name for names in splits.values() for name in names)
        if repeated := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"a class belongs to one split, once; repeated: {', '.join(repeated)}")
        # A class's name is that of a folder in the layouts that have folders.
        if wrong := [name for name in counts if not Path(name).parts or Path(name).anchor or ".." in Path(name).parts]:
            raise ValueError(f"a class is named as a folder may be, and not {wrong[0]!r}")
        return splits

    @property
    def n_classes(self) -> int:
        """Classes of all splits together."""
        return sum(len(names) for names in self.splits.values())

    @property
    def n_images(self) -> int | None:
        """Images of all splits together, where that is known."""
        return self.n_classes * self.images_per_class if self.images_per_class else self.images


def card_names(workspace: Workspace) -> list[str]:
    """Sorted names of the datasets that have a card, in the workspace or in the package."""
    return workspace.list("data/cards", ".toml")


def load_card(workspace: Workspace, name: str) -> Card:
    """The card of the dataset `name`.

    Raises:
        DataError: no dataset has this name, or its card is no TOML or has a wrong field.
    """
    path = workspace.find(f"data/cards/{name}.toml") if name in card_names(workspace) else None
    if path is None:
        own = f"fewshot-nsl data prepare {name} --from PATH --image-size 84"
        raise DataError(f"no dataset is called '{name}'; there are: {', '.join(card_names(workspace))}; to add one of your own: {own}")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        if "turns_of" in values:
            turned = values.pop("turns_of")
            if turned == name:
                raise DataError(f"{path}: field 'turns_of': a dataset is not the turns of itself")
            values["splits"] = _turned(load_card(workspace, turned))
        card = Card.model_validate(values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a TOML file: {error}") from error
    except ValidationError as error:
        raise DataError(f"{path}: field {first_wrong_field(error)}") from error
    if card.name != name:
        raise DataError(f"{path}: field 'name' is '{card.name}', expected '{name}' as in the file's name")
    return card


def _turned(card: Card) -> dict[str, list[str]]:
    """The classes of `card`, each in four quarter turns as classes of its own (Santoro et al. 2016)."""
    return {split: [f"{name}/{turn}" for name in names for turn in QUARTER_TURNS] for split, names in card.splits.items()}
