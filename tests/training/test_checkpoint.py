import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fewshot_nsl.backbones import ModelDescription
from fewshot_nsl.errors import CheckpointError
from fewshot_nsl.training import CheckpointCard, load_checkpoint, save_checkpoint
from fewshot_nsl.training.checkpoint import current_versions, load_state
from fewshot_nsl.workspace import file_checksum

CARD = CheckpointCard(
    network="meta-static",
    description=ModelDescription(backbone="cnn4", image_size=16, channels=1, width=4, mean=(0.1,), std=(1 / 3,)),
    settings={"n_way": 3, "lr": 0.01, "first_order": False},
    dataset="tiny",
    fingerprint="ab" * 32,
    augmentations=["flip"],
    seed=2**62,
    step=7,
    best=1 / 3,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "some.safetensors"


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    return {
        "backbone.weight": torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last),
        "backbone.count": torch.tensor(5),
        "classifier.weight": torch.randn(3, 4, dtype=torch.float64).T,
    }


def test_card_and_tensors_come_back_bit_for_bit(path: Path, tensors: dict[str, Tensor]) -> None:
    save_checkpoint(path, CARD, tensors)
    loaded = load_checkpoint(path)
    assert loaded.path == path
    assert loaded.card == CARD.model_copy(update={"versions": current_versions()})
    assert loaded.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded.tensors[name].dtype == value.dtype
        assert torch.equal(loaded.tensors[name], value)


def test_versions_are_of_what_computes() -> None:
    versions = current_versions()
    assert versions["torch"] == torch.__version__
    assert {"fewshot-nsl", "numpy", "higher"} < versions.keys()


def test_a_part_is_what_has_its_prefix(path: Path, tensors: dict[str, Tensor]) -> None:
    save_checkpoint(path, CARD, tensors | {"backbones": torch.ones(1)})
    assert load_checkpoint(path).part("backbone").keys() == {"weight", "count"}
    assert load_checkpoint(path).part("optimizer") == {}


def test_saving_replaces_the_file_in_one_step(path: Path, tensors: dict[str, Tensor]) -> None:
    save_checkpoint(path, CARD, tensors)
    save_checkpoint(path, CARD.model_copy(update={"step": 8}), tensors)
    assert load_checkpoint(path).card.step == 8
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(path: Path, tensors: dict[str, Tensor]) -> None:
    save_checkpoint(path, CARD, tensors)
    before = file_checksum(path)
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError, match="share memory"):
        save_checkpoint(path, CARD, {"a": shared, "b": shared})
    assert file_checksum(path) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _text(path: Path) -> None:
    path.write_text("no tensors here")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"format": "pt"})


def _bare(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path)


def _card(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        content = json.loads(CARD.model_dump_json()) | changes
        save_file({"weight": torch.zeros(2)}, path, metadata={"card": json.dumps(content)})

    return write


def _no_json(path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, path, metadata={"card": "{"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "does not exist; train one first: fewshot-nsl pretrain"),
        (_cut, r"is damaged or no safetensors file \(.*\); train it again or fetch it again"),
        (_text, "is damaged or no safetensors file"),
        (_empty, "is damaged or no safetensors file"),
        (_foreign, "has no fewshot-nsl card in its metadata; expected a file written by pretrain or meta-train"),
        (_bare, "has no fewshot-nsl card in its metadata"),
        (_card(step="many"), ": its card's field 'step' is not as expected: .*integer"),
        (_card(description={}), r": its card's field 'description\.backbone' is not as expected: Field required"),
        (_card(colour="red"), ": its card's field 'colour' is not as expected: Extra inputs are not permitted"),
        (_card(format="fewshot-nsl checkpoint 2"), "has format 'fewshot-nsl checkpoint 2': expected 'fewshot-nsl checkpoint 1'"),
        (_no_json, "its card's field '' is not as expected: Invalid JSON"),
    ],
)
def test_what_is_no_checkpoint_is_refused_by_name(
    path: Path, tensors: dict[str, Tensor], damage: Callable[[Path], None], message: str
) -> None:
    save_checkpoint(path, CARD, tensors)
    damage(path)
    with pytest.raises(CheckpointError, match=f"checkpoint {path}.*{message}") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"checkpoint {tmp_path} does not exist"):
        load_checkpoint(tmp_path)


def test_state_goes_into_a_module_of_the_same_tensors(path: Path) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_state(target, source.state_dict(), path)
    assert torch.equal(target.weight, source.weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, r"'bias' is nothing, expected \(2,\)"),
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, r"'weight' is \(2, 4\), expected \(2, 3\)"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "M": torch.zeros(9)}, r"'M' is \(9,\), expected nothing"),
    ],
)
def test_state_of_another_model_is_refused_and_the_tensor_named(path: Path, state: dict[str, Tensor], message: str) -> None:
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(CheckpointError, match=f"checkpoint {path} is of another model: {message}"):
        load_state(module, state, path)
    assert torch.equal(module.weight, before)
