import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import fewshot_nsl
from fewshot_nsl.cli.data import app
from fewshot_nsl.data import open_store
from fewshot_nsl.errors import ConfigurationError, DataError
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
    listed = [line.split()[:4] for line in output.splitlines()[1:9]]
    assert ["cifar-fs", "no", "100", "60000"] in listed
    assert ["glyphs", "yes", "158", "9480"] in listed
    assert ["omniglot-rotated", "no", "6492", "129840"] in listed
    assert listed == sorted(listed)
    assert "To get cifar-fs: download https://www.cs.toronto.edu/" in output
    assert "To get glyphs" not in output


def test_info_describes_a_store(glyph_workspace: Workspace) -> None:
    output = _output("info", "glyphs", "--workspace", str(glyph_workspace.root))
    for text in ("65 classes, 3900 images", "28 x 28 pixels", open_store(glyph_workspace, "glyphs").fingerprint, "DejaVu fonts licence"):
        assert text in output
    table = [line.split() for line in output.partition("images  split  class\n")[2].splitlines()]
    assert len(table) == 158
    assert table[0] == ["60", "train", "u0041-latin-capital-a"]
    assert sum(int(row[0]) for row in table) == 9480


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
    told = "error: cifar-fs is not embedded: give its images with --from PATH, or with --download; to get them: download https://"
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


def test_a_store_that_another_process_reads(glyph_workspace: Workspace) -> None:
    done = _process("verify", "glyphs", "--workspace", str(glyph_workspace.root))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("glyphs is whole")


def test_a_dataset_of_ones_own_from_a_folder_to_a_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("ash", "bee", "cat", "dog", "elm"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "photos" / name / f"{i}.jpg")
    place = ("--workspace", str(tmp_path))
    output = _output("prepare", "mine", "--from", str(tmp_path / "photos"), "--image-size", "16", *place)
    assert "Reading class folders." in output
    assert "mine is prepared: 20 images of 5 classes" in output
    assert "16 x 16 pixels, 3 channel(s)" in _output("info", "mine", *place)
    assert "mine is prepared already" in _output("prepare", "mine", *place)
    assert ["mine", "yes", "5", "varies"] in [line.split()[:4] for line in _output("list", *place).splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mine", "--image-size", "16"), "give its folder too, with --from PATH"),
        (("mine", "--from", ".", "--split-seed", "1"), "are for a dataset of your own: give its --image-size too"),
        (("cifar-fs", "--from", ".", "--download"), "--download and --from both say where the images are"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CliRunner().invoke(app, ["prepare", *arguments, "--workspace", str(tmp_path)], catch_exceptions=False)


def test_a_dataset_without_downloads_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tiered-imagenet cannot be downloaded by a command; to get it: get ImageNet"):
        CliRunner().invoke(app, ["prepare", "tiered-imagenet", "--download", "--workspace", str(tmp_path)], catch_exceptions=False)


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that nobody can write to")
def test_a_disk_that_cannot_be_written_to_is_one_line() -> None:
    done = _process("prepare", "glyphs", "--workspace", "/sys/kernel")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no access to /sys/kernel/data (")
    assert "work in another folder with --workspace" in done.stderr
    assert done.stderr.count("\n") == 1
