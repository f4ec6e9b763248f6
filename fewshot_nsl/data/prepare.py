"""From what a user has on disk to a store: read, order, write aside, move into place."""

from pathlib import Path

from fewshot_nsl.data.aside import folder_moved_into_place, only_writer
from fewshot_nsl.data.card import load_card
from fewshot_nsl.data.datasets import DATASETS
from fewshot_nsl.data.record import RECORD_FILE
from fewshot_nsl.data.store import ImageStore, open_store, prepared_stores
from fewshot_nsl.data.write import Progress, write_store
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace


def prepare(
    workspace: Workspace, name: str, source: Path | None = None, *, force: bool = False, progress: Progress | None = None
) -> ImageStore:
    """Prepare the dataset `name` from `source` (None for one that is embedded), and open it.

    A store that is there already is opened and left as it is, unless `force` replaces it. The store appears in one step when
    it is whole: a process killed at any moment leaves the old store or none, and a later call tidies up.

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
        if name not in DATASETS:
            raise DataError(f"{name} has a card but no reader; there are readers for: {', '.join(DATASETS)}")
        if source is not None and not source.exists():
            raise DataError(f"{source} does not exist; to get {name}: {card.how_to_get}")
        found = DATASETS[name](card, source)
        with folder_moved_into_place(target) as folder:
            write_store(card, found, folder, progress)
        return open_store(workspace, name)
