"""The bridges with the real learn2learn and torchmeta, which want an environment of their own; without it, nothing here runs.

FEWSHOT_NSL_PEERS_PYTHON=$(python evaluate/benchmarks/peers.py FOLDER) python -m pytest tests/interop
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fewshot_nsl.data import ImageStore
from fewshot_nsl.workspace import Workspace

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("FEWSHOT_NSL_PEERS_PYTHON")

pytestmark = pytest.mark.skipif(PYTHON is None, reason="FEWSHOT_NSL_PEERS_PYTHON is not set (evaluate/benchmarks/peers.py)")


def _run(*arguments: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'evaluate' / 'benchmarks'}"}
    done = subprocess.run([str(PYTHON), *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_libraries_themselves_agree_with_the_bridges(tiny_store: ImageStore, tmp_path: Path) -> None:
    workspace = tiny_store.root.parents[1]
    said = _run(str(Path(__file__).with_name("with_peers.py")), str(workspace), "tiny", folder=tmp_path)
    assert said == "both libraries agree\n"


def test_the_guide_runs_where_they_are(glyph_workspace: Workspace, tmp_path: Path) -> None:
    shutil.copytree(glyph_workspace.root, tmp_path, dirs_exist_ok=True)
    page = (ROOT / "docs" / "interop.md").read_text()
    blocks = re.findall(r"^```(?:python|py)\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "guide.py").write_text("\n".join(["from peers_imports import prepare_imports", "prepare_imports()", *blocks]))
    _run("guide.py", folder=tmp_path)
