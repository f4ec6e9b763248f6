"""`fewshot-nsl data`: which datasets there are, and preparing, describing and checking them."""

from pathlib import Path
from typing import Annotated

import typer

from fewshot_nsl.cli import options, printing, progress

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
        images = "varies" if card.n_images is None else str(card.n_images)
        table.add_row(card.name, "yes" if card.name in prepared else "no", str(card.n_classes), images, pixels)
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
    download: Annotated[bool, typer.Option("--download", help="Fetch the images first, into data/downloads.")] = False,
    image_size: Annotated[int | None, typer.Option(min=1, help="For a dataset of your own: pixels of a side.")] = None,
    grey: Annotated[bool, typer.Option("--grey", help="For a dataset of your own: store one channel.")] = False,
    split_file: Annotated[Path | None, typer.Option(help="For a dataset of your own: a CSV of the columns class, split.")] = None,
    split_seed: Annotated[int, typer.Option(min=0, help="For a dataset of your own that has no split: of a random one.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a store that is there already.")] = False,
    workspace: options.WorkspaceFolder = Path(),
) -> None:
    """Bring a dataset into data/NAME, ready for use.

    A dataset of your own is a folder with a folder of images for each class, or train/, val/ and test/ of such; give --image-size once.

    Examples:
        fewshot-nsl data prepare glyphs

        fewshot-nsl data prepare cifar-fs --download

        fewshot-nsl data prepare mini-imagenet --from ~/mini-imagenet

        fewshot-nsl data prepare my-birds --from ~/birds --image-size 84
    """
    from fewshot_nsl import data
    from fewshot_nsl.errors import ConfigurationError
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    if download and source:
        raise ConfigurationError("--download and --from both say where the images are; give one of them")
    if image_size is None and (grey or split_file or split_seed):
        raise ConfigurationError("--grey, --split-file and --split-seed are for a dataset of your own: give its --image-size too")
    if image_size is not None:
        if source is None:
            raise ConfigurationError("--image-size makes a dataset of your own: give its folder too, with --from PATH")
        channels = 1 if grey else 3
        data.new_card(place, name, source, image_size=image_size, channels=channels, split_file=split_file, split_seed=split_seed)
    was_there = name in data.prepared_stores(place) and not force
    if download and not was_there:
        printing.notify(f"Downloading {name}; its licence: {data.load_card(place, name).licence}.")
        with progress.download_progress() as show_bytes:
            source = data.download_dataset(place, name, show_bytes)
    with progress.counting_progress(f"preparing {name}", "images") as show:
        store = data.prepare(place, name, source, force=force, progress=show, announce=lambda layout: printing.notify(f"Reading {layout}."))
    done = "is prepared already" if was_there else "is prepared"
    typer.echo(
        f"{name} {done}: {len(store.labels)} images of {len(store.classes)} classes in {store.root}, fingerprint {store.fingerprint}"
    )


@app.command()
def info(name: Name, workspace: options.WorkspaceFolder = Path()) -> None:
    """Describe a prepared dataset: counts, sizes, fingerprint, licence, and how many images each class has."""
    import numpy as np

    from fewshot_nsl.data import load_card, open_store, read_record
    from fewshot_nsl.workspace import open_workspace

    place = open_workspace(workspace)
    store = open_store(place, name)
    card, record = load_card(place, name), read_record(store.root)
    typer.echo(f"{name}: {record.title}")
    for split, size in record.splits.items():
        typer.echo(f"  {split:<12} {size.classes} classes, {size.images} images")
    typer.echo(f"  image        {record.image_size} x {record.image_size} pixels, {record.channels} channel(s), 0-255")
    typer.echo(f"  on disk      {store.images.nbytes / 1e6:,.1f} MB in {store.root}")
    typer.echo(f"  mean         {', '.join(f'{value:.3f}' for value in record.mean)}   (train, 0-255)")
    typer.echo(f"  std          {', '.join(f'{value:.3f}' for value in record.std)}   (train, pixel units)")
    typer.echo(f"  fingerprint  {record.fingerprint}")
    typer.echo(f"  read from    {record.layout}, by fewshot-nsl {record.package_version}")
    typer.echo(f"  licence      {record.licence}")
    typer.echo(f"  home         {card.homepage}")
    typer.echo(f"  cite         {card.citation}")
    typer.echo("\n  images  split  class")
    for split, rows in store.splits.items():
        for label, count in zip(*np.unique(store.labels[rows.start : rows.stop], return_counts=True), strict=True):
            typer.echo(f"  {count:>6}  {split:<5}  {store.classes[label]}")


@app.command()
def verify(name: Name, workspace: options.WorkspaceFolder = Path()) -> None:
    """Read a prepared dataset again, whole, and compare it with its checksums."""
    from fewshot_nsl import data
    from fewshot_nsl.workspace import open_workspace

    with progress.counting_progress(f"verifying {name}", "images") as show:
        store = data.verify(open_workspace(workspace), name, show)
    typer.echo(f"{name} is whole: {len(store.labels)} images, fingerprint {store.fingerprint}")
