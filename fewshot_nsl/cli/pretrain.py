"""`fewshot-nsl pretrain`: learn the base classes."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress, recipe_options
from fewshot_nsl.errors import ConfigurationError

NETWORKS = ("plain", "dynamic")


def pretrain(
    dataset: options.Dataset = None,
    network: Annotated[list[str] | None, typer.Option("--network", help="plain or dynamic; by default both, one after the other.")] = None,
    backbone: options.Backbone = None,
    width: options.Width = None,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="30", help="Passes over the base images.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, show_default="128", help="Images of a step.")] = None,
    lr: Annotated[float | None, typer.Option(show_default="0.1", help="Peak learning rate.")] = None,
    augment: Annotated[
        bool | None,
        typer.Option("--augment/--no-augment", show_default="augment", help="Crop and flip, as the dataset allows; the paper does not."),
    ] = None,
    recipe: recipe_options.Name = None,
    seed: options.Seed = 0,
    engine: options.Kernels = "auto",
    precision: options.Precision = None,
    device: options.Device = "auto",
    resume: options.Resume = True,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Pretrain the plain backbone and the dynamic network on the base classes.

    Examples:
        fewshot-nsl pretrain --dataset cifar-fs --network plain --epochs 30

        fewshot-nsl pretrain --recipe cifar-fs/dynamic --seed 1
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.training import PretrainConfig, load_recipe
    from fewshot_nsl.training import pretrain as train
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    asked = {
        "backbone": backbone,
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "augment": augment,
        "precision": precision,
    }
    if recipe:
        row = load_recipe(place, recipe)
        config = row.pretrain_config(seed)
        if config is None:
            raise ConfigurationError(f"recipe {row.name} has no pretraining; train it: fewshot-nsl meta-train --recipe {recipe}")
        recipe_options.check_agree(row.name, row, {"dataset": dataset})
        recipe_options.check_agree(row.name, config, asked | {"network": ",".join(network) if network else None})
        dataset, configs = row.dataset, [config]
    else:
        given = {name: value for name, value in asked.items() if value is not None}
        configs = [PretrainConfig.checked({"network": name, "seed": seed, **given}) for name in network or NETWORKS]
    arithmetic = options.open_precision(configs[0].precision, target)
    store, notice = choose_store(place, dataset)
    printing.notify(notice)
    kernels = options.open_kernels(engine, target, arithmetic)
    for config in configs:
        with progress.training_progress(f"{store.name} {config.network}") as show:
            run = train(place, store, config, target, kernels=kernels, resume=resume, progress=show)
        printing.report_run(run, place)
