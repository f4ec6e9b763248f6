"""What an evaluation leaves behind: one immutable JSON file."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fewshot_nsl.config import first_wrong_field
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import moved_into_place


class ResultRow(BaseModel):
    """One strategy on the episodes of the evaluation."""

    model_config = ConfigDict(frozen=True)

    strategy: str
    title: str
    recipe: str | None = Field(default=None, description="its name, where the row is of one")
    recipe_digest: str | None = Field(default=None, description="SHA-256 of what the recipe says of data, training and evaluation")
    backbone: str
    width: int = Field(description="filters of a block")
    parameters: int = Field(description="weights of the backbone, similarity included")
    checkpoint: str
    checkpoint_sha256: str
    transductive: bool
    trained_on: str
    training_seed: int | None = None
    training_seconds: float | None = Field(default=None, description="of all training together, where it is known")
    augmentations: list[str] = Field(description="of the training images")
    accuracy: float = Field(description="mean over episodes, a fraction in [0, 1]")
    ci95: float = Field(description="half width of the 95 % interval, a fraction")
    accuracies: list[float] = Field(description="one per episode, fractions")
    seconds: float


class Evaluation(BaseModel):
    """Rows that share their episodes, with everything needed to draw those again."""

    model_config = ConfigDict(frozen=True)

    created: datetime = Field(description="UTC")
    command: str
    dataset: str
    fingerprint: str = Field(description="of the store")
    split: str
    n_way: int
    n_shot: int | tuple[int, ...] = Field(description="per class; one number per way where they differ")
    n_query: int = Field(description="per class")
    episodes: int
    seed: int = Field(description="of the episodes")
    frozen: str | None = Field(default=None, description="fingerprint of the frozen set they are the first of; None where they were drawn")
    hardware: str
    engine: str | None = Field(default=None, description="of the inner loop, where it was chosen for strategies that take gradient steps")
    precision: str = Field(default="float32", description="of the networks")
    versions: dict[str, str]
    rows: list[ResultRow]


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write the JSON file, moved into place whole."""
    with moved_into_place(path) as aside:
        aside.write_text(evaluation.model_dump_json(indent=1) + "\n")


def read_evaluations(folder: Path) -> dict[str, Evaluation]:
    """The evaluations of a folder by the names of their files, oldest first; none where there is no folder.

    Raises:
        DataError: a file is no evaluation.
    """
    evaluations = {}
    for path in sorted(folder.glob("*.json")):
        try:
            evaluations[path.name] = Evaluation.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DataError(f"{path} is not an evaluation: field {first_wrong_field(error)}; move it elsewhere") from error
    return evaluations


def result_name(evaluation: Evaluation) -> str:
    """`<utc>-<hash>.json`: sorts by time, and no two evaluations share it."""
    digest = hashlib.sha256(evaluation.model_dump_json().encode()).hexdigest()[:8]
    return f"{evaluation.created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest}.json"
