from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewshot_nsl.errors import ConfigurationError, KernelError
from fewshot_nsl.kernels import NativeKernels, build_native, choose, choose_native, compiler

GPU = torch.device("cuda")


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(announce: Callable[[str], None] | None = None) -> Path:
        del announce
        raise KernelError("no compiler")

    monkeypatch.setattr(choose, "build_native", fail)


@pytest.mark.usefixtures("no_compiler")
def test_where_there_is_no_compiler_auto_says_so_once_and_fast_fails() -> None:
    said: list[str] = []
    assert choose_native("auto", announce=said.append) is None
    assert said == ["Using torch's own operators, --engine plain: no compiler"]
    assert choose_native() is None
    with pytest.raises(KernelError, match="no compiler"):
        choose_native("fast")


@pytest.mark.usefixtures("no_compiler")
def test_nothing_is_compiled_where_nothing_would_be_used() -> None:
    said: list[str] = []
    assert choose_native("plain", announce=said.append) is None
    assert choose_native("auto", GPU, announce=said.append) is None
    assert choose_native("auto", half=True, announce=said.append) is None
    assert said == []


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="engine 'higher' is unknown here: expected one of auto, fast, plain"):
        choose_native("higher")
    with pytest.raises(ConfigurationError, match="engine fast has kernels for processors: use --engine auto or plain on a GPU"):
        choose_native("fast", GPU)
    with pytest.raises(ConfigurationError, match="engine fast computes in float32: use --engine auto with --precision bfloat16"):
        choose_native("fast", half=True)


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", ["auto", "fast"])
def test_where_there_is_a_compiler_kernels_are_compiled(name: str) -> None:
    build_native()
    assert isinstance(choose_native(name), NativeKernels)
