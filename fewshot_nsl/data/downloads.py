"""Fetching a dataset from where its card says that it is."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fewshot_nsl.data.card import load_card
from fewshot_nsl.data.download import fetch
from fewshot_nsl.data.unpack import unpack
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

FOLDER = "downloads"
"""In `data/`; shared, since CIFAR-FS and FC100 are made from one archive."""


def download_dataset(workspace: Workspace, name: str, progress: Callable[[str, int, int | None], None] | None = None) -> Path:
    """Fetch what the dataset `name` is made from, whole and checked; what is there already is not fetched again.

    Args:
        workspace: files go into its `data/downloads`.
        name: of a dataset whose card lists downloads.
        progress: called with a file's name, its bytes done and in all (None where the server does not say).

    Returns:
        The folder to prepare the dataset from.

    Raises:
        DataError: the card lists none; there is no network; or what came is not what the card says.
    """
    card = load_card(workspace, name)
    if not card.downloads:
        raise DataError(f"{name} cannot be downloaded by a command; to get it: {card.how_to_get}")
    folder = workspace.data / FOLDER
    for each in card.downloads:
        file = fetch(each, folder, partial(progress, each.file) if progress else None)
        if each.unpack:
            unpack(file, folder / each.file.partition(".")[0])
    return folder
