import subprocess
import sys

import pytest
import torch

from fewshot_nsl.devices import DEVICES, describe_hardware, resolve_device
from fewshot_nsl.errors import ConfigurationError, DeviceError

GPU = torch.cuda.is_available()


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_gpu_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if GPU else "cpu")


@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_cuda_is_given_where_it_is() -> None:
    assert resolve_device("cuda").type == "cuda"
    assert describe_hardware(torch.device("cuda")) == torch.cuda.get_device_name()


@pytest.mark.skipif(GPU, reason="needs a machine without a CUDA device")
def test_cuda_is_refused_where_it_is_not() -> None:
    with pytest.raises(DeviceError, match=r"device cuda: torch .* sees no GPU here; use --device cpu, or install a CUDA build"):
        resolve_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:0", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device '{name}' is unknown: expected one of {', '.join(DEVICES)}"):
        resolve_device(name)


def test_a_processor_is_described_with_its_threads() -> None:
    processor, threads = describe_hardware(torch.device("cpu")).rsplit(", ", 1)
    assert processor
    assert threads.startswith(f"{torch.get_num_threads()} threads of ")


def test_memory_that_was_freed_is_kept_and_used_again() -> None:
    # For the whole process, hence in one of its own.
    code = "import torch; from fewshot_nsl.devices import keep_freed_memory as f; f(); f(); print(int(torch.ones(2**22).sum()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{2**22}\n"
