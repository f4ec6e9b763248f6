"""`fewshot-nsl evaluate`: every strategy that has a checkpoint, on the same episodes."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import episode_options, options, printing, progress, recipe_options

EPISODES = 600
"""Of an evaluation, where nothing else is asked for."""


def evaluate(
    dataset: options.Dataset = None,
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="A row of the table; by default all with a checkpoint.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="Evaluate these files in place of the finished runs.")
    ] = None,
    backbone: options.Backbone = None,
    frozen: episode_options.Frozen = None,
    split: episode_options.Split = None,
    n_way: episode_options.Ways = None,
    n_shot: episode_options.Shots = None,
    n_query: episode_options.Queries = None,
    episodes: Annotated[
        int | None, typer.Option(min=2, show_default=f"{EPISODES}, or all that are frozen", help="Episodes, the same for all strategies.")
    ] = None,
    recipe: recipe_options.Name = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the runs that are looked for.")] = 0,
    episode_seed: Annotated[
        int | None, typer.Option("--episode-seed", min=0, show_default=str(episode_options.SEED), help="Of the episodes.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Use a checkpoint on the same dataset with other pixels.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="JSON file; by default evaluate/results/<utc>-<hash>.json.")] = None,
    engine: options.Engine = "auto",
    precision: options.Precision = None,
    device: options.Device = "auto",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Evaluate on novel classes: mean accuracy over episodes with its 95% interval.

    Examples:
        fewshot-nsl evaluate --dataset cifar-fs --episodes 600

        fewshot-nsl evaluate --frozen cifar-fs-test-5way-1shot-600

        fewshot-nsl evaluate --recipe cifar-fs/dynamic --checkpoint dynamic.safetensors
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.episodes import FrozenEpisodes
    from fewshot_nsl.evaluate import result_name, write_evaluation
    from fewshot_nsl.training import Row, evaluate_rows, gather_rows, load_checkpoint, load_recipe, trained_row
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    arithmetic = options.open_precision(precision, target)
    given = [load_checkpoint(path) for path in checkpoint or []]
    row = load_recipe(place, recipe) if recipe else None
    if row:
        asked = {"split": split, "n_way": n_way, "n_shot": n_shot, "n_query": n_query, "episodes": episodes, "seed": episode_seed}
        recipe_options.check_agree(row.name, row.evaluation, asked)
        recipe_options.check_agree(row.name, row, {"dataset": dataset, "strategy": strategy, "backbone": backbone})
        dataset, episodes, episode_seed = row.dataset, row.evaluation.episodes, row.evaluation.seed
        split, n_way, n_shot, n_query = row.evaluation.split, row.evaluation.n_way, row.evaluation.n_shot, row.evaluation.n_query
    path, dataset = episode_options.find_set(place, frozen, dataset)
    store, notice = choose_store(place, dataset or (given[0].card.dataset if given else None))
    printing.notify(notice)
    sampler, split = episode_options.open_episodes(store, path, split=split, n_way=n_way, n_shot=n_shot, n_query=n_query, seed=episode_seed)
    if row:
        rows = [Row(row.strategy_name, each, row) for each in given] or [trained_row(place, store, row, seed)]
    else:
        rows = gather_rows(place, store.name, backbone or options.BACKBONE, seed, strategies=strategy or [], given=given)
    with progress.evaluation_progress() as show:
        evaluation = evaluate_rows(
            place,
            rows,
            store,
            target,
            sampler,
            split=split,
            episodes=episodes or (len(sampler) if isinstance(sampler, FrozenEpisodes) else EPISODES),
            command=shlex.join(["fewshot-nsl", *sys.argv[1:]]),
            engine=partial(options.open_engine, engine, target, arithmetic),
            precision=arithmetic,
            force=force,
            progress=show,
        )
    written = output or place.results / result_name(evaluation)
    write_evaluation(evaluation, written)
    printing.print_table(evaluation)
    typer.echo(f"Written to {place.relative(written)}")
