"""`fewshot-nsl data`: which datasets there are, and preparing, describing and checking them."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options
from fewshot_nsl.cli.progress import counting_progress

app = typer.Typer(help="List, prepare, describe and verify datasets.")

Name = Annotated[str, typer.Argument(help="A dataset that `fewshot-nsl data list` shows, for instance glyphs.")]


@app.command("list")
def list_datasets(workspace: options.WorkspaceFolder = Path()) -> None:
    """Show every dataset: its size, whether it is prepared here, and how to get it."""
    from rich.console import Console
    from rich.table import Table

    from fewshot_nsl.data import card_names, load_card, prepared_stores
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    prepared = prepared_stores(place)
    cards = [load_card(place, name) for name in card_names(place)]
    table = Table("dataset", "prepared", "classes", "images", "pixels", box=None)
    for card in cards:
        side = card.image_size
        pixels = f"{side} x {side} x {card.channels}"
        table.add_row(card.name, "yes" if card.name in prepared else "no", str(card.n_classes), str(card.n_images), pixels)
    Console().print(table)
    for card in cards:
        if card.name not in prepared:
            typer.echo(f"\nTo get {card.name}: {card.how_to_get}.")


@app.command()
def prepare(
    name: Name,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder or archive that holds the images; not needed for glyphs.", metavar="PATH")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a store that is there already.")] = False,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Bring a dataset into data/NAME, ready for use.

    Examples:
        fewshot-nsl data prepare glyphs

        fewshot-nsl data prepare cifar-fs --from cifar-100-python.tar.gz

        fewshot-nsl data prepare mini-imagenet --from ~/mini-imagenet
    """
    from fewshot_nsl import data
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    was_there = name in data.prepared_stores(place) and not force
    with counting_progress(f"preparing {name}", "images") as progress:
        store = data.prepare(place, name, source, force=force, progress=progress)
    done = "is prepared already" if was_there else "is prepared"
    typer.echo(
        f"{name} {done}: {len(store.labels)} images of {len(store.classes)} classes in {store.root}, fingerprint {store.fingerprint}"
    )


@app.command()
def info(name: Name, workspace: options.WorkspaceFolder = Path()) -> None:
    """Describe a prepared dataset."""
    from fewshot_nsl.data import load_card, open_store, read_record
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    card, record = load_card(place, name), read_record(open_store(place, name).root)
    typer.echo(f"{name}: {record.title}")
    for split, size in record.splits.items():
        typer.echo(f"  {split:<12} {size.classes} classes, {size.images} images")
    typer.echo(f"  image        {record.image_size} x {record.image_size} pixels, {record.channels} channel(s), 0-255")
    typer.echo(f"  mean         {', '.join(f'{value:.3f}' for value in record.mean)}   (train, 0-255)")
    typer.echo(f"  std          {', '.join(f'{value:.3f}' for value in record.std)}   (train, pixel units)")
    typer.echo(f"  fingerprint  {record.fingerprint}")
    typer.echo(f"  read from    {record.layout}, by fewshot-nsl {record.package_version}")
    typer.echo(f"  licence      {record.licence}")
    typer.echo(f"  home         {card.homepage}")
    typer.echo(f"  cite         {card.citation}")


@app.command()
def verify(name: Name, workspace: options.WorkspaceFolder = Path()) -> None:
    """Read a prepared dataset again, whole, and compare it with its checksums."""
    from fewshot_nsl import data
    from fewshot_nsl.workspace import open_workspace

    with counting_progress(f"verifying {name}", "images") as progress:
        store = data.verify(open_workspace(workspace), name, progress)
    typer.echo(f"{name} is whole: {len(store.labels)} images, fingerprint {store.fingerprint}")
