"""The arithmetic of networks: float32, or with fewer digits and faster. Solvers, losses and BN's statistics stay in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field

from fewshot_nsl.config import Config, LeftOut
from fewshot_nsl.errors import ConfigurationError, DeviceError

PrecisionName = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)

_AMPERE = 8
"""The first generation of GPUs, as a major compute capability, that has TF32 and bfloat16."""


class PrecisionChoice(Config):
    """The part of a configuration that says in which precision networks are trained; float32 is not written out, and names no run."""

    precision: Annotated[PrecisionName, LeftOut()] = Field(default="float32", description="of convolutions and matrix products")


@dataclass(frozen=True)
class Precision:
    """One of `PRECISIONS` on a device.

    float32: full products everywhere; torch's own default on a GPU is TF32 in convolutions.
    tf32: factors of GPU products keep 10 bits of their fractions, sums are in float32.
    bfloat16: what a network computes between its convolutions is kept in bfloat16 too, 7 bits of fraction; weights and their gradients,
    statistics of BN, and what leaves the network are in float32.
    """

    name: str
    device: torch.device

    @property
    def half(self) -> bool:
        """Whether networks compute in bfloat16."""
        return self.name == "bfloat16"

    def network(self) -> torch.autocast:
        """A context for one forward pass of a network, and nothing else: weights must not change inside."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    @contextmanager
    def products(self) -> Iterator[None]:
        """A context for everything that trains or runs networks: the precision of float32 products on a GPU."""
        with _float32_products("tf32" if self.name == "tf32" else "ieee"):
            yield


@contextmanager
def full_products() -> Iterator[None]:
    """Inside, or in a function decorated with `full_products()`, float32 products on a GPU have all their digits."""
    with _float32_products("ieee"):
        yield


def resolve_precision(name: str, device: torch.device) -> Precision:
    """The precision of this name on this device.

    Raises:
        ConfigurationError: another name.
        DeviceError: `tf32` on a processor, which has none, or either of the faster ones on a GPU of before 2020.
    """
    if name not in PRECISIONS:
        raise ConfigurationError(f"precision '{name}' is unknown: expected one of {', '.join(PRECISIONS)}")
    if name == "tf32" and device.type == "cpu":
        raise DeviceError("precision tf32 is of GPUs, and this runs on a CPU: use --precision float32 or bfloat16")
    if name != "float32" and device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < _AMPERE:
        raise DeviceError(f"precision {name} needs a GPU from Ampere on, got {torch.cuda.get_device_name(device)}: use --precision float32")
    return Precision(name, device)


@contextmanager
def _float32_products(mode: Literal["ieee", "tf32"]) -> Iterator[None]:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = mode
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value
