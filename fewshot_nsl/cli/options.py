"""Options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_nsl.cli import printing

if TYPE_CHECKING:  # slow to import, and a command's help does not need it
    import torch

    from fewshot_nsl.inner_loop import Engine as InnerLoopEngine
    from fewshot_nsl.kernels import NativeKernels
    from fewshot_nsl.precision import Precision as NetworkPrecision

BACKBONE, PRECISION = "cnn4", "float32"
"""Where nothing else is asked for."""

# None is "not asked for": the default is then that of the strategy, or what a recipe says.
WorkspaceFolder = Annotated[Path, typer.Option("--workspace", help="Folder with data/, runs/ and evaluate/.")]
Dataset = Annotated[str | None, typer.Option("--dataset", help="Prepared dataset; by default mini-imagenet. See: fewshot-nsl data list.")]
Backbone = Annotated[
    str | None,
    typer.Option("--backbone", show_default=BACKBONE, help="cnn4, cnn9, plain-cifar, plain-imagenet, resnet12, resnet18 or resnet50."),
]
Width = Annotated[int | None, typer.Option("--width", min=1, help="Filters of the first stage; by default what is usual for the backbone.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Engine = Annotated[str, typer.Option("--engine", help="Of the inner loop: auto, fast, plain or higher. See: docs/speed.md.")]
Kernels = Annotated[str, typer.Option("--engine", help="fast (kernels compiled here, once), plain (none), or auto. See: docs/speed.md.")]
TasksAtOnce = Annotated[
    int | None,
    typer.Option("--tasks-at-once", min=1, help="Tasks whose gradients are taken together: fewer need less memory.", show_default="all"),
]
Precision = Annotated[
    str | None, typer.Option("--precision", show_default=PRECISION, help="float32, tf32 (on a GPU) or bfloat16. See: docs/speed.md.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of initial weights and of everything random in training.")]
Resume = Annotated[bool, typer.Option("--resume/--no-resume", help="Go on where the same run stopped, or begin it again.")]

Ways = Annotated[int, typer.Option("--n-way", min=2, help="Classes of an episode.")]
Shots = Annotated[int, typer.Option("--n-shot", min=1, help="Support images of a class.")]
Queries = Annotated[int, typer.Option("--n-query", min=1, help="Query images of a class.")]


def open_device(name: str) -> "torch.device":
    """The device, and a process made ready for heavy work on it."""
    from fewshot_nsl.devices import keep_freed_memory, resolve_device

    device = resolve_device(name)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def open_precision(name: str | None, device: "torch.device") -> "NetworkPrecision":
    """The precision of networks."""
    from fewshot_nsl.precision import resolve_precision

    return resolve_precision(name or PRECISION, device)


def open_engine(name: str, device: "torch.device", precision: "NetworkPrecision | None" = None) -> "InnerLoopEngine":
    """The engine of the inner loop, by default for float32; a line says when something is compiled."""
    from fewshot_nsl.inner_loop import choose_engine

    return choose_engine(name, device, half=precision is not None and precision.half, announce=printing.notify)


def open_kernels(name: str, device: "torch.device", precision: "NetworkPrecision") -> "NativeKernels | None":
    """The kernels that pretraining runs on; a line says when they are compiled."""
    from fewshot_nsl.kernels import choose_native

    return choose_native(name, device, half=precision.half, announce=printing.notify)
