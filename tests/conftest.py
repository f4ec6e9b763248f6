"""What more than one room's tests use."""

import pytest

from fewshot_nsl.data import prepare
from fewshot_nsl.workspace import Workspace, open_workspace


@pytest.fixture(scope="session")
def glyph_workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which the embedded dataset is prepared; made once, to be read only."""
    workspace = open_workspace(tmp_path_factory.mktemp("glyphs"))
    prepare(workspace, "glyphs")
    return workspace
