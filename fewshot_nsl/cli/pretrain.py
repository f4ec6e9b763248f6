"""`fewshot-nsl pretrain`: learn the base classes."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress

NETWORKS = ("plain", "dynamic")


def pretrain(
    dataset: options.Dataset = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="plain or dynamic; by default both, one after the other.")] = None,
    backbone: options.Backbone = "cnn4",
    width: Annotated[int | None, typer.Option(min=1, help="Filters of the first stage; by default what is usual for the backbone.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the base images.")] = 30,
    batch_size: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 128,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.1,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Crop and flip, as the dataset allows; the paper does not.")
    ] = True,
    seed: options.Seed = 0,
    engine: options.Kernels = "auto",
    precision: options.Precision = "float32",
    device: options.Device = "auto",
    resume: options.Resume = True,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Pretrain the plain backbone and the dynamic network on the base classes.

    Example: fewshot-nsl pretrain --dataset cifar-fs --network plain --epochs 30
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.training import PretrainConfig
    from fewshot_nsl.training import pretrain as train
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    arithmetic = options.open_precision(precision, target)
    shared = {
        "backbone": backbone,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "augment": augment,
        "seed": seed,
        "precision": arithmetic.name,
    }
    configs = [PretrainConfig.checked({"network": name, **shared}) for name in network or NETWORKS]
    store, notice = choose_store(place, dataset)
    printing.notify(notice)
    kernels = options.open_kernels(engine, target, arithmetic)
    for config in configs:
        with progress.training_progress(f"{store.name} {config.network}") as show:
            run = train(place, store, config, target, kernels=kernels, resume=resume, progress=show)
        printing.report_run(run, place)
