"""`fewshot-nsl meta-train`: learn from episodes, starting at the pretrained backbone or from scratch."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress, recipe_options
from fewshot_nsl.errors import ConfigurationError

STRATEGY = "meta-static"
"""Where nothing else is asked for."""


def meta_train(
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            show_default=STRATEGY,
            help="meta-static, meta-dynamic, meta-classifier, maml, protonet, matching-net, relation-net, r2d2, leo or tadam.",
        ),
    ] = None,
    dataset: options.Dataset = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Pretrained backbone, where not from scratch; by default the finished run's.")
    ] = None,
    backbone: options.Backbone = None,
    width: options.Width = None,
    similarity: Annotated[
        str | None,
        typer.Option(show_default="plain", help="Convolutions of a backbone that is trained from scratch: plain, static or dynamic."),
    ] = None,
    structure: Annotated[
        str | None, typer.Option(show_default="unconstrained of static, diagonal of dynamic", help="Of M, with --similarity.")
    ] = None,
    n_way: Annotated[int | None, typer.Option(min=2, show_default="5; 20 of protonet", help="Classes of a training episode.")] = None,
    n_shot: Annotated[int | None, typer.Option(min=1, show_default="5", help="Support images of a class.")] = None,
    n_query: Annotated[int | None, typer.Option(min=1, show_default="15; 10 of relation-net", help="Query images of a class.")] = None,
    iterations: Annotated[
        int | None,
        typer.Option(min=1, help="Outer steps.", show_default="1000 from a pretrained backbone; 60000 of maml, 30000 of tadam, else 20000"),
    ] = None,
    meta_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tasks of an outer step.",
            show_default="2 from a pretrained backbone and of tadam, 12 of leo; 1 of protonet and relation-net, else 4",
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(show_default="0.001", help="Of Adam, outside; falls to 0 along a cosine.")] = None,
    inner_lr: Annotated[
        float | None,
        typer.Option(
            help="Inside, of M or its predictors, of all weights in maml, of the classifier in meta-classifier, of codes in leo.",
            show_default="0.01; 10.0 of meta-classifier; 1.0 of leo",
        ),
    ] = None,
    inner_lr_classifier: Annotated[
        float | None, typer.Option(help="Inside, of the classifier of meta-static and meta-dynamic.", show_default="10.0")
    ] = None,
    inner_steps: Annotated[int | None, typer.Option(min=0, show_default="5", help="Inner steps in training.")] = None,
    inner_test_steps: Annotated[int | None, typer.Option(min=0, show_default="10", help="Inner steps in validation and test.")] = None,
    first_order: Annotated[
        bool | None, typer.Option("--first-order/--second-order", show_default="second-order", help="Leave out second derivatives.")
    ] = None,
    transductive: Annotated[
        bool | None,
        typer.Option(
            "--transductive/--inductive",
            show_default="transductive",
            help="Whether maml normalises queries by their own statistics, all together, or by the supports'.",
        ),
    ] = None,
    full_context: Annotated[
        bool | None,
        typer.Option(
            "--full-context/--own-features", show_default="own-features", help="Whether matching-net's embeddings see all supports."
        ),
    ] = None,
    base_batch: Annotated[
        int | None, typer.Option(min=1, show_default="64", help="Images of a step of tadam that teaches all base classes at once.")
    ] = None,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", show_default="no-augment", help="Crop and flip, as the dataset allows.")
    ] = None,
    validate_every: Annotated[
        int | None,
        typer.Option(min=1, help="Outer steps between validations.", show_default="100 from a pretrained backbone, else 500"),
    ] = None,
    validation_episodes: Annotated[int | None, typer.Option(min=1, show_default="100", help="Episodes of a validation.")] = None,
    recipe: recipe_options.Name = None,
    seed: options.Seed = 0,
    engine: options.Engine = "auto",
    tasks_at_once: options.TasksAtOnce = None,
    precision: options.Precision = None,
    device: options.Device = "auto",
    resume: options.Resume = True,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Meta-train a strategy on episodes of the base classes, and keep what is best on validation classes.

    Examples:
        fewshot-nsl meta-train --strategy meta-static --dataset cifar-fs

        fewshot-nsl meta-train --strategy protonet --similarity dynamic --dataset cifar-fs

        fewshot-nsl meta-train --recipe cifar-fs/maml --seed 1
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.strategies import get_meta_strategy
    from fewshot_nsl.training import find_pretrained, find_start, load_checkpoint, load_recipe
    from fewshot_nsl.training import meta_train as train
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    asked = {
        "width": width,
        "similarity": similarity,
        "structure": structure,
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
        "transductive": transductive,
        "full_context": full_context,
        "base_batch": base_batch,
        "augment": augment,
        "validate_every": validate_every,
        "validation_episodes": validation_episodes,
        "precision": precision,
    }
    row = load_recipe(place, recipe) if recipe else None
    if row:
        meta_config = row.meta_config(seed)
        if meta_config is None:
            raise ConfigurationError(f"recipe {row.name} is not trained on episodes; train it: fewshot-nsl pretrain --recipe {recipe}")
        config, entry = meta_config, get_meta_strategy(meta_config.strategy)
        recipe_options.check_agree(row.name, row, {"dataset": dataset})
        recipe_options.check_agree(row.name, config, asked | {"strategy": strategy, "backbone": backbone if entry.from_scratch else None})
        dataset = row.dataset
    else:
        entry = get_meta_strategy(strategy or STRATEGY)
        # Where there is a pretrained backbone, this one only says which.
        values = {**asked, "backbone": backbone if entry.from_scratch else None, "seed": seed}
        config = entry.config.checked({name: value for name, value in values.items() if value is not None})
    arithmetic = options.open_precision(config.precision, target)
    given = load_checkpoint(checkpoint) if checkpoint else None
    store, notice = choose_store(place, dataset or (given.card.dataset if given else None))
    printing.notify(notice)
    pretrained = given
    if entry.pretrained and not given:
        pretrained = (
            find_start(place, store, row, seed)
            if row
            else find_pretrained(place, store.name, backbone or options.BACKBONE, entry.pretrained, seed)
        )
    if pretrained:
        printing.notify(
            f"Starting from {place.relative(pretrained.path)}, {printing.percent(pretrained.card.best)} on held-out base images."
        )
    chosen = options.open_engine(engine, target, arithmetic)
    with progress.training_progress(f"{store.name} {config.strategy}") as show:
        run = train(place, store, pretrained, config, target, engine=chosen, tasks_at_once=tasks_at_once, resume=resume, progress=show)
    printing.report_run(run, place)
