"""Which dataset a command works on when it is not told."""

from fewshot_nsl.data.card import load_card
from fewshot_nsl.data.prepare import prepare
from fewshot_nsl.data.store import ImageStore, open_store, prepared_stores
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

DEFAULT = "mini-imagenet"
EMBEDDED = "glyphs"


def choose_store(workspace: Workspace, name: str | None) -> tuple[ImageStore, str | None]:
    """The store to work on, and a notice for the person if it is not the one they might expect.

    With a name, that one. Without, mini-imagenet; or, where no dataset was ever prepared, the embedded glyphs.

    Raises:
        DataError: the one named does not exist or is not prepared; or none is named, and others are prepared but not mini-imagenet.
    """
    prepared = prepared_stores(workspace)
    if name is None and DEFAULT not in prepared:
        if others := [store for store in prepared if store != EMBEDDED]:
            raise DataError(
                f"{DEFAULT} is not prepared, {', '.join(others)} is: choose with --dataset NAME, or run: "
                f"fewshot-nsl data prepare {DEFAULT} --from PATH"
            )
        notice = f"No dataset is prepared: using the embedded {EMBEDDED}. For photographs: fewshot-nsl data prepare {DEFAULT} --from PATH"
        return prepare(workspace, EMBEDDED), notice
    if name == EMBEDDED:
        return prepare(workspace, EMBEDDED), None
    name = name or DEFAULT
    if name not in prepared:
        load_card(workspace, name)  # refuses a name that is no dataset's, and lists those that are
    return open_store(workspace, name), None
