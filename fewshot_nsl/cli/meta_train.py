"""`fewshot-nsl meta-train`: learn from episodes, starting at the pretrained backbone or from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress


def meta_train(
    strategy: Annotated[str, typer.Option("--strategy", help="What is learned: meta-static, meta-dynamic, meta-classifier or maml.")] = "meta-static",
    dataset: options.Dataset = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Pretrained backbone, where not from scratch; by default the finished run's.")
    ] = None,
    backbone: options.Backbone = "cnn4",
    width: Annotated[
        int | None, typer.Option(min=1, help="Filters of the first stage, of maml; by default what is usual for the backbone.")
    ] = None,
    n_way: options.Ways = 5,
    n_shot: options.Shots = 5,
    n_query: options.Queries = 15,
    iterations: Annotated[int | None, typer.Option(min=1, help="Outer steps.", show_default="1000; 60000 of maml")] = None,
    meta_batch: Annotated[int | None, typer.Option(min=1, help="Tasks of an outer step.", show_default="2; 4 of maml")] = None,
    lr: Annotated[float, typer.Option(help="Of Adam, outside; falls to 0 along a cosine.")] = 1e-3,
    inner_lr: Annotated[
        float | None,
        typer.Option(
            help="Inside, of M or its predictors, of all weights in maml, of the classifier in meta-classifier.",
            show_default="0.01; 10.0 of meta-classifier",
        ),
    ] = None,
    inner_lr_classifier: Annotated[float | None, typer.Option(help="Inside, of the classifier of meta-static and meta-dynamic.", show_default="10.0")] = None,
    inner_steps: Annotated[int, typer.Option(min=0, help="Inner steps in training.")] = 5,
    inner_test_steps: Annotated[int, typer.Option(min=0, help="Inner steps in validation and test.")] = 10,
    first_order: Annotated[bool, typer.Option("--first-order/--second-order", help="Leave out second derivatives.")] = False,
    validate_every: Annotated[
        int | None, typer.Option(min=1, help="Outer steps between validations on val episodes.", show_default="100; 500 of maml")
    ] = None,
    validation_episodes: Annotated[int, typer.Option(min=1, help="Episodes of a validation.")] = 100,
    seed: options.Seed = 0,
    engine: options.Engine = "auto",
    tasks_at_once: Annotated[
        int | None, typer.Option(min=1, help="Tasks whose gradients are taken together: fewer need less memory.", show_default="all")
    ] = None,
    precision: options.Precision = "float32",
    device: options.Device = "auto",
    resume: options.Resume = True,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Meta-train a strategy on episodes of the base classes, and keep what is best on validation classes.

    Examples:
        fewshot-nsl meta-train --strategy meta-static --dataset cifar-fs

        fewshot-nsl meta-train --strategy maml --dataset cifar-fs --n-shot 1
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.strategies import get_meta_strategy
    from fewshot_nsl.training import find_pretrained, load_checkpoint
    from fewshot_nsl.training import meta_train as train
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    arithmetic = options.open_precision(precision, target)
    entry = get_meta_strategy(strategy)
    values = {
        # Where there is a pretrained backbone, this one only says which.
        "backbone": backbone if entry.from_scratch else None,
        "width": width,
        "n_way": n_way,
        "n_shot": n_shot,
        "n_query": n_query,
        "iterations": iterations,
        "meta_batch": meta_batch,
        "lr": lr,
        "inner_lr": inner_lr,
        "inner_lr_classifier": inner_lr_classifier,
        "inner_steps": inner_steps,
        "inner_test_steps": inner_test_steps,
        "first_order": first_order,
        "validate_every": validate_every,
        "validation_episodes": validation_episodes,
        "seed": seed,
        "precision": arithmetic.name,
    }
    config = entry.config.checked({name: value for name, value in values.items() if value is not None})
    given = load_checkpoint(checkpoint) if checkpoint else None
    store, notice = choose_store(place, dataset or (given.card.dataset if given else None))
    printing.notify(notice)
    pretrained = given or (find_pretrained(place, store.name, backbone, entry.pretrained, seed) if entry.pretrained else None)
    if pretrained:
        printing.notify(
            f"Starting from {place.relative(pretrained.path)}, {printing.percent(pretrained.card.best)} on held-out base images."
        )
    chosen = options.open_engine(engine, target, arithmetic)
    with progress.training_progress(f"{store.name} {strategy}") as show:
        run = train(place, store, pretrained, config, target, engine=chosen, tasks_at_once=tasks_at_once, resume=resume, progress=show)
    printing.report_run(run, place)
