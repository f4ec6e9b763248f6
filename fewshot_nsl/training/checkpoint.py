"""Checkpoints: safetensors files that say what they are, and run nothing when loaded."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fewshot_nsl.backbones import ModelDescription
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.workspace import moved_into_place

FORMAT = "fewshot-nsl checkpoint 1"


class CheckpointCard(BaseModel):
    """What a checkpoint says of itself, in its safetensors metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = FORMAT
    network: str = Field(description='what was trained: "plain", "dynamic", or the name of a strategy')
    description: ModelDescription
    settings: dict[str, Any] = Field(default_factory=dict, description="constructor arguments of a trained strategy")
    dataset: str
    fingerprint: str = Field(description="of the store it was trained on")
    augmentations: list[str] = Field(default_factory=list, description="changes of the training images, of pretraining too")
    seed: int
    step: int = Field(description="optimizer steps taken")
    best: float | None = Field(default=None, description="highest validation accuracy so far, a fraction")
    versions: dict[str, str] = Field(default_factory=dict)


class Checkpoint(BaseModel):
    """A card and its tensors; `prefix` parts of one file are told apart by the first word of their names."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: Path
    card: CheckpointCard
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors named `prefix.…`, without the prefix."""
        return {name.removeprefix(f"{prefix}."): value for name, value in self.tensors.items() if name.startswith(f"{prefix}.")}


def save_checkpoint(path: Path, card: CheckpointCard, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and card; the file at `path` is the old one or the new one, never half of it.

    Raises:
        OSError: the disk is full or not writable.
    """
    card = card.model_copy(update={"versions": current_versions()})
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with moved_into_place(path) as aside:
        try:
            save_file(plain, aside, metadata={"card": card.model_dump_json()})
        except SafetensorError as error:
            # safetensors reports a full disk in its own words.
            raise OSError(f"cannot write {path}: {error}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: no such file, or not a checkpoint of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"checkpoint {path} does not exist; train one first: fewshot-nsl pretrain")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if "card" not in metadata:
            raise CheckpointError(
                f"checkpoint {path} has no fewshot-nsl card in its metadata; expected a file written by pretrain or meta-train"
            )
        card = CheckpointCard.model_validate_json(metadata["card"])
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {path} is damaged or no safetensors file ({error}); train it again or fetch it again") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"checkpoint {path}: its card's field '{field}' is not as expected: {first['msg']}") from error
    if card.format != FORMAT:
        raise CheckpointError(f"checkpoint {path} has format '{card.format}': expected '{FORMAT}'")
    return Checkpoint(path=path, card=card, tensors=tensors)


def load_state(module: torch.nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module of exactly the same tensors.

    Raises:
        CheckpointError: names or shapes differ; the first that does is named.
    """
    expected = module.state_dict()
    for name in sorted(expected.keys() | state.keys()):
        want = tuple(expected[name].shape) if name in expected else "nothing"
        got = tuple(state[name].shape) if name in state else "nothing"
        if want != got:
            raise CheckpointError(f"checkpoint {path} is of another model: '{name}' is {got}, expected {want}")
    module.load_state_dict(state)


def current_versions() -> dict[str, str]:
    """Versions of what computes."""
    return {name: version(name) for name in ("fewshot-nsl", "torch", "numpy", "higher")}
