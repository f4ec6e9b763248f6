"""`fewshot-nsl bench`: how long a meta-step takes on this machine, how long it would have to, and how long it takes elsewhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_nsl.cli import options, printing

if TYPE_CHECKING:  # slow to import, and a command's help needs none of them
    from fewshot_nsl.bench import Comparison, MetaWork

GIGA = 1e9


def bench(
    strategy: Annotated[list[str] | None, typer.Option("--strategy", help="maml or meta-static; may be repeated; by default both.")] = None,
    image_size: Annotated[int, typer.Option("--image-size", min=16, help="Pixels on a side.")] = 32,
    tasks: Annotated[int, typer.Option("--tasks", min=1, help="Tasks of a step.")] = 4,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Timed rounds, after two to warm up; the median counts.")] = 3,
    engine: options.Engine = "auto",
    device: options.Device = "auto",
    output: Annotated[Path | None, typer.Option("--output", dir_okay=False, help="JSON lines file, a line a figure.")] = None,
) -> None:
    """Time one second-order meta-step (CNN-4, 5-way 5-shot) against this machine's limits and the other libraries that are installed.

    Example: fewshot-nsl bench --image-size 84 --output bench.jsonl
    """
    import torch

    from fewshot_nsl.bench import MetaWork, agreeing_peers, ceilings, compare, installed_peers, timed_strategies
    from fewshot_nsl.devices import describe_hardware
    from fewshot_nsl.workspace import moved_into_place

    work, names = MetaWork(image_size=image_size, tasks=tasks), timed_strategies(strategy or [])
    target = options.open_device(device)
    chosen = options.open_engine(engine, target)
    operations, traffic = ceilings(target)
    typer.echo(f"{describe_hardware(target)}, torch {torch.__version__}")
    typer.echo(f"{operations / GIGA:.0f} GFLOP/s in a large float32 product, {traffic / GIGA:.1f} GB/s in a large copy")
    peers = agreeing_peers(installed_peers(printing.notify), names, printing.notify)
    comparisons = []
    for name in names:
        printing.notify(f"Timing {name} in turn: {', '.join(['ours', *peers])}")
        comparisons.append(compare(name, work, [chosen], peers, target, rounds=rounds, operations=operations))
    _print_table(work, comparisons)
    if output:
        lines = [line for comparison in comparisons for line in comparison.figures(target)]
        with moved_into_place(output) as aside:
            aside.write_text("".join(f"{line}\n" for line in lines))
        typer.echo(f"Written to {output}")


def _print_table(work: "MetaWork", comparisons: "Sequence[Comparison]") -> None:
    """A column a strategy; below ours, everybody's time and how many of ours that is."""
    from rich.console import Console
    from rich.table import Table

    sizes = f"{work.n_way}-way {work.n_shot}-shot, {work.n_query} queries a class"
    typer.echo(f"One meta-step, CNN-4, {work.width} filters: {work}, {sizes}, second order")
    table = Table(caption="Milliseconds, in brackets over ours.", caption_justify="left")
    table.add_column("")
    for each in comparisons:
        table.add_column(each.strategy, justify="right")
    (engine,) = comparisons[0].ours
    mine = [each.ours[engine] for each in comparisons]
    table.add_row(f"ours, {engine}", *(f"{ours:.1f} (1.00)" for ours in mine))
    for name in ("floor", *comparisons[0].peers):
        times = [each.floor if name == "floor" else each.peers[name] for each in comparisons]
        table.add_row(name, *(f"{time:.1f} ({time / ours:.2f})" for time, ours in zip(times, mine, strict=True)))
    Console().print(table)
    typer.echo("Floor: the convolutions of the step at the rate of the large product.")
