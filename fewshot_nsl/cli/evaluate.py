"""`fewshot-nsl evaluate`: every strategy that has a checkpoint, on the same episodes."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress


def evaluate(
    dataset: options.Dataset = None,
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="A row of the table; by default all with a checkpoint.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="Evaluate these files in place of the finished runs.")
    ] = None,
    backbone: options.Backbone = "cnn4",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    n_way: options.Ways = 5,
    n_shot: options.Shots = 5,
    n_query: options.Queries = 15,
    episodes: Annotated[int, typer.Option(min=2, help="Episodes, the same for all strategies.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the runs that are looked for.")] = 0,
    episode_seed: Annotated[int, typer.Option("--episode-seed", min=0, help="Of the episodes.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Use a checkpoint on the same dataset with other pixels.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="JSON file; by default evaluate/results/<utc>-<hash>.json.")] = None,
    device: options.Device = "auto",
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Evaluate on novel classes: mean accuracy over episodes with its 95% interval.

    Example: fewshot-nsl evaluate --dataset cifar-fs --episodes 600
    """
    from fewshot_nsl.data import choose_store
    from fewshot_nsl.evaluate import result_name, write_evaluation
    from fewshot_nsl.training import evaluate_rows, gather_rows, load_checkpoint
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    target = options.open_device(device)
    given = [load_checkpoint(path) for path in checkpoint or []]
    store, notice = choose_store(place, dataset or (given[0].card.dataset if given else None))
    printing.notify(notice)
    rows = gather_rows(place, store.name, backbone, seed, strategies=strategy or [], given=given)
    with progress.evaluation_progress() as show:
        evaluation = evaluate_rows(
            place,
            rows,
            store,
            target,
            split=split,
            n_way=n_way,
            n_shot=n_shot,
            n_query=n_query,
            episodes=episodes,
            seed=episode_seed,
            command=shlex.join(["fewshot-nsl", *sys.argv[1:]]),
            force=force,
            progress=show,
        )
    path = output or place.results / result_name(evaluation)
    write_evaluation(evaluation, path)
    printing.print_table(evaluation)
    typer.echo(f"Written to {place.relative(path)}")
