import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import fewshot_nsl
from fewshot_nsl.cli.data import app
from fewshot_nsl.data import open_store
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

ROOT = Path(fewshot_nsl.__file__).parents[1]


def _output(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def _process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fewshot_nsl", "data", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_list_shows_what_is_prepared_and_how_to_get_the_rest(glyph_workspace: Workspace) -> None:
    output = _output("list", "--workspace", str(glyph_workspace.root))
    assert [line.split()[:4] for line in output.splitlines()[1:4]] == [
        ["cifar-fs", "no", "100", "60000"],
        ["glyphs", "yes", "158", "9480"],
        ["mini-imagenet", "no", "100", "60000"],
    ]
    assert "To get cifar-fs: download https://www.cs.toronto.edu/" in output
    assert "To get glyphs" not in output


def test_info_describes_a_store(glyph_workspace: Workspace) -> None:
    output = _output("info", "glyphs", "--workspace", str(glyph_workspace.root))
    for text in ("65 classes, 3900 images", "28 x 28 pixels", open_store(glyph_workspace, "glyphs").fingerprint, "DejaVu fonts licence"):
        assert text in output


def test_verify_says_that_a_store_is_whole(glyph_workspace: Workspace) -> None:
    assert "glyphs is whole: 9480 images" in _output("verify", "glyphs", "--workspace", str(glyph_workspace.root))


def test_preparing_again_says_that_it_is_there(glyph_workspace: Workspace) -> None:
    output = _output("prepare", "glyphs", "--workspace", str(glyph_workspace.root))
    assert output.startswith("glyphs is prepared already: 9480 images of 158 classes in ")
    assert open_store(glyph_workspace, "glyphs").fingerprint in output


def test_the_librarys_refusals_come_through(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="glyphs is not prepared"):
        CliRunner().invoke(app, ["info", "glyphs", "--workspace", str(tmp_path)], catch_exceptions=False)


def test_a_refusal_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = _process("prepare", "cifar-fs", "--workspace", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cifar-fs is not embedded: give its images with --from PATH; to get them: download https://")
    assert done.stderr.count("\n") == 1


def test_a_store_that_another_process_reads(glyph_workspace: Workspace) -> None:
    done = _process("verify", "glyphs", "--workspace", str(glyph_workspace.root))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("glyphs is whole")
