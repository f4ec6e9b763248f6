"""From what a user has on disk to a store: read, order, write aside, move into place."""

from collections.abc import Callable
from pathlib import Path

from fewshot_nsl.data.aside import folder_moved_into_place, only_writer
from fewshot_nsl.data.card import Card, load_card
from fewshot_nsl.data.datasets import DATASETS, EMBEDDED, FOLDERS
from fewshot_nsl.data.layouts.layout import find_layout
from fewshot_nsl.data.record import RECORD_FILE
from fewshot_nsl.data.source import Source
from fewshot_nsl.data.store import ImageStore, open_store, prepared_stores
from fewshot_nsl.data.write import Progress, write_store
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


def prepare(
    workspace: Workspace,
    name: str,
    source: Path | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> ImageStore:
    """Prepare the dataset `name` from `source` (None for one that is embedded), and open it.

    A store that is there already is opened and left as it is, unless `force` replaces it. The store appears in one step when
    it is whole: a process killed at any moment leaves the old store or none, and a later call tidies up.

    Args:
        workspace: the store goes into its `data/<name>`.
        name: of a dataset that has a card.
        source: folder or archive that holds the images, in any layout that is known for the dataset.
        force: replace a store that is there.
        progress: called with images done and in all.
        announce: called with the name of the layout once it is recognised, before anything is decoded.

    Raises:
        DataError: no such dataset; the source is missing, incomplete or damaged; or the folder of the store holds something else.
    """
    card = load_card(workspace, name)
    if name in prepared_stores(workspace) and not force:
        return open_store(workspace, name)
    target = workspace.data / name
    with only_writer(target):
        if name in prepared_stores(workspace):
            if not force:  # another process made it while this one waited
                return open_store(workspace, name)
        elif target.exists():
            raise DataError(
                f"{target} holds no {RECORD_FILE}, so it is not a store and will not be replaced; move it away, then prepare again"
            )
        found = _read(card, source)
        if announce:
            announce(found.layout)
        with folder_moved_into_place(target) as folder:
            write_store(card, found, folder, progress)
        return open_store(workspace, name)


def _read(card: Card, source: Path | None) -> Source:
    if card.name in EMBEDDED:
        if source is not None:
            raise DataError(f"{card.name} is embedded and read from no path, got {source}; run: fewshot-nsl data prepare {card.name}")
        return EMBEDDED[card.name](card)
    if source is None:
        ways = "--from PATH, or with --download" if card.downloads else "--from PATH"
        raise DataError(f"{card.name} is not embedded: give its images with {ways}; to get them: {card.how_to_get}")
    layout, root = find_layout(card, source, DATASETS.get(card.name, FOLDERS))
    return layout.read(card, root)
