from typing import Any

import pytest
import torch
from torch.nn import functional

from fewshot_nsl.errors import ConfigurationError, DeviceError
from fewshot_nsl.precision import PRECISIONS, Precision, PrecisionChoice, full_products, resolve_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def _modes() -> tuple[str, str]:
    cudnn: Any = torch.backends.cudnn
    return torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision


def test_other_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigurationError, match=r"^precision 'half' is unknown: expected one of float32, tf32, bfloat16$"):
        resolve_precision("half", CPU)


def test_a_processor_has_no_tf32() -> None:
    with pytest.raises(DeviceError, match=r"^precision tf32 is of GPUs, and this runs on a CPU: use --precision float32 or bfloat16$"):
        resolve_precision("tf32", CPU)


@pytest.mark.parametrize("name", ["tf32", "bfloat16"])
def test_an_old_gpu_has_neither_of_the_faster_ones(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an old one")
    for generation in (7, 8):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, generation=generation: (generation, 5))
        assert resolve_precision("float32", GPU).name == "float32"
        if generation == 8:
            assert resolve_precision(name, GPU) == Precision(name, GPU)
            continue
        with pytest.raises(DeviceError, match=f"^precision {name} needs a GPU from Ampere on, got an old one: use --precision float32$"):
            resolve_precision(name, GPU)


@pytest.mark.parametrize("name", PRECISIONS)
def test_products_have_their_precision_inside_and_the_old_one_after(name: str) -> None:
    before, inside = _modes(), "tf32" if name == "tf32" else "ieee"
    assert before != (inside, inside)
    with pytest.raises(KeyError), Precision(name, GPU).products():  # noqa: PT012 - what is left when something is raised
        assert _modes() == (inside, inside)
        with full_products():
            assert _modes() == ("ieee", "ieee")
        assert _modes() == (inside, inside)
        raise KeyError
    assert _modes() == before


def test_a_decorated_function_has_full_products() -> None:
    with Precision("tf32", GPU).products():
        assert full_products()(_modes)() == ("ieee", "ieee")


def test_networks_compute_in_bfloat16_where_that_is_asked_for() -> None:
    images, weight = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        precision = Precision(name, CPU)
        assert precision.half is (dtype == torch.bfloat16)
        with precision.network():
            assert functional.conv2d(images, weight).dtype == dtype
        assert functional.conv2d(images, weight).dtype == torch.float32


def test_float32_is_not_written_down_and_the_others_are() -> None:
    assert PrecisionChoice().model_dump() == PrecisionChoice(precision="float32").model_dump(mode="json") == {}
    assert PrecisionChoice(precision="tf32").model_dump() == {"precision": "tf32"}
    assert PrecisionChoice.checked(PrecisionChoice().model_dump()).precision == "float32"


def test_a_configuration_knows_the_same_names() -> None:
    with pytest.raises(ConfigurationError, match=r"precision of PrecisionChoice: .*'float32', 'tf32' or 'bfloat16', got 'half'"):
        PrecisionChoice.checked({"precision": "half"})
