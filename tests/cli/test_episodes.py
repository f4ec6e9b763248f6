"""`episodes freeze`, `episodes show` and `evaluate --frozen`, on glyphs, as a person calls them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from fewshot_nsl.backbones import ModelDescription, build_model
from fewshot_nsl.cli import episodes
from fewshot_nsl.cli.evaluate import evaluate
from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import EpisodeSampler, picture_episode, read_frozen
from fewshot_nsl.errors import FewShotNSLError
from fewshot_nsl.training.checkpoint import CheckpointCard, save_checkpoint
from fewshot_nsl.workspace import Workspace

# Not the whole command line: its first callback names typer's own class of a context, and what runs is that class's parent.
app = typer.Typer()
app.add_typer(episodes.app, name="episodes")
app.command("evaluate")(evaluate)

Run = Callable[..., str]

NAME = "glyphs-test-5way-2shot-30"


@pytest.fixture(scope="module")
def place(glyph_workspace: Workspace, glyph_store: ImageStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with glyphs, an untrained checkpoint `plain.safetensors`, and a frozen set; to be read only."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(glyph_workspace.root, folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    description = ModelDescription(backbone="cnn4", channels=1, width=4, image_size=28, mean=glyph_store.mean, std=glyph_store.std)
    card = CheckpointCard(network="plain", description=description, dataset="glyphs", fingerprint=glyph_store.fingerprint, seed=0, step=0)
    tensors = {f"backbone.{name}": value for name, value in build_model(description).state_dict().items()}
    save_checkpoint(folder / "plain.safetensors", card, tensors)
    CliRunner().invoke(app, ["episodes", "freeze", "--workspace", str(folder), "--n-shot", "2", "--episodes", "30"], catch_exceptions=False)
    return folder


@pytest.fixture
def run(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command's output, run in a copy of `place`."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False, env={"COLUMNS": "160"})
        assert result.exit_code == 0, result.output
        return result.output

    return run


def test_freeze_writes_the_set_and_says_what_it_is(run: Run, glyph_store: ImageStore) -> None:
    output = run(
        "episodes", "freeze", "--n-way", "3", "--n-shot", "1", "--n-query", "2", "--episodes", "12", "--seed", "4", "--split", "val"
    )
    path = Path("episodes/glyphs-val-3way-1shot-12.parquet")
    frozen = read_frozen(path, glyph_store)
    assert f"{path}: 12 episodes, {path.stat().st_size:,} bytes, fingerprint {frozen.fingerprint}" in output
    sampler = EpisodeSampler(glyph_store.split_labels("val"), 3, 1, 2, seed=4)
    assert (frozen.n_query, frozen.seed) == (2, 4)
    assert all((frozen[i].query_rows == sampler[i].query_rows).all() for i in range(12))


def test_unbalanced_sets_have_a_name_of_their_own(run: Run, glyph_store: ImageStore) -> None:
    run("episodes", "freeze", "--unbalanced", "--episodes", "5")
    assert read_frozen(Path("episodes/glyphs-test-5way-5shot-5-unbalanced.parquet"), glyph_store).description.balanced is False


def test_a_set_is_kept_unless_it_is_the_same_or_forced(run: Run) -> None:
    path = Path(f"episodes/{NAME}.parquet")
    before, arguments = path.read_bytes(), ("episodes", "freeze", "--n-shot", "2", "--episodes", "30")
    assert "30 episodes" in run(*arguments)
    with pytest.raises(FewShotNSLError, match=r"has other episodes .* pass --force"):
        run(*arguments, "--seed", "1")
    assert path.read_bytes() == before
    run(*arguments, "--seed", "1", "--force")
    assert path.read_bytes() != before
    run(*arguments, "--output", "elsewhere/mine.parquet")
    assert Path("elsewhere/mine.parquet").read_bytes() == before


def test_show_draws_an_episode_of_the_sampler(run: Run, glyph_store: ImageStore) -> None:
    written = "episodes/glyphs-val-4way-5shot-seed2-episode3.png"
    assert f"Written to {written}" in run("episodes", "show", "--split", "val", "--n-way", "4", "--seed", "2", "--episode", "3")
    episode = EpisodeSampler(glyph_store.split_labels("val"), 4, 5, 15, seed=2)[3]
    expected = picture_episode(glyph_store, episode, "glyphs, val classes: 4-way 5-shot, seed 2, episode 3")
    with Image.open(written) as picture:
        assert (picture.format, picture.tobytes()) == ("PNG", expected.tobytes())


def test_show_draws_a_frozen_episode(run: Run) -> None:
    run("episodes", "show", "--n-shot", "2", "--episode", "29", "--output", "drawn.png")
    run("episodes", "show", "--frozen", NAME, "--episode", "29", "--output", "frozen.PNG")
    run("episodes", "show", "--frozen", f"episodes/{NAME}.parquet", "--episode", "29")
    drawn = Path("drawn.png").read_bytes()
    assert Path("frozen.PNG").read_bytes() == Path(f"episodes/{NAME}-episode29.png").read_bytes() == drawn


EVALUATE = ("evaluate", "--checkpoint", "plain.safetensors", "--strategy", "nearest-mean", "--device", "cpu", "--output")


def test_frozen_episodes_give_the_accuracies_of_drawn_ones(run: Run, glyph_store: ImageStore) -> None:
    run(*EVALUATE, "drawn.json", "--n-shot", "2", "--episodes", "30")
    output = run(*EVALUATE, "frozen.json", "--frozen", NAME)
    assert "5-way 2-shot, 30 frozen episodes" in output
    drawn, frozen = (json.loads(Path(f"{name}.json").read_text()) for name in ("drawn", "frozen"))
    assert frozen["rows"][0]["accuracies"] == drawn["rows"][0]["accuracies"]
    assert len(set(frozen["rows"][0]["accuracies"])) > 3
    told = ("dataset", "fingerprint", "split", "n_way", "n_shot", "n_query", "episodes", "seed")
    assert [frozen[name] for name in told] == [drawn[name] for name in told]
    assert drawn["frozen"] is None
    assert frozen["frozen"] == read_frozen(Path(f"episodes/{NAME}.parquet"), glyph_store).fingerprint


def test_the_whole_command_line_takes_a_frozen_set(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fewshot_nsl", *EVALUATE, str(tmp_path / "result.json"), "--frozen", NAME]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "160"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "5-way 2-shot, 30 frozen episodes" in done.stdout
    refused = subprocess.run([*command, "--n-shot", "1"], cwd=place, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("error: n_shot 1 is asked for")


def test_fewer_episodes_are_the_first(run: Run) -> None:
    run(*EVALUATE, "all.json", "--frozen", NAME)
    # options that say what the set says anyway are allowed
    run(*EVALUATE, "some.json", "--frozen", NAME, "--episodes", "7", "--n-shot", "2", "--split", "test", "--episode-seed", "0")
    whole, some = (json.loads(Path(f"{name}.json").read_text()) for name in ("all", "some"))
    assert some["rows"][0]["accuracies"] == whole["rows"][0]["accuracies"][:7]
    assert (some["episodes"], some["frozen"]) == (7, whole["frozen"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n-way", "4"), f"n_way 4 is asked for, but the episodes frozen in .*{NAME}.parquet have n_way 5; leave it out"),
        (("--n-shot", "5"), "n_shot 5 is asked for, but .* have n_shot 2; leave it out"),  # what is drawn where nothing is asked for
        (("--n-query", "1"), "n_query 1 is asked for, but .* have n_query 15"),
        (("--split", "val"), "split val is asked for, but .* have split test"),
        (("--episode-seed", "3"), "seed 3 is asked for, but .* have seed 0"),
        (("--episodes", "31"), "episode 30 is out of range: the frozen set has 30"),
        (("--dataset", "cifar-fs"), "cifar-fs is not prepared"),
    ],
)
def test_what_a_frozen_set_is_not_cannot_be_asked_for(run: Run, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(FewShotNSLError, match=message):
        run(*EVALUATE, "refused.json", "--frozen", NAME, *arguments)
    assert not Path("refused.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "--frozen", "nothing"), f"frozen set nothing is neither a file nor in episodes/ .there: .*{NAME}"),
        (("show", "--frozen", NAME, "--episode", "30"), "episode 30 is out of range: the frozen set has 30"),
        (("show", "--frozen", NAME, "--seed", "1"), "seed 1 is asked for, but .* have seed 0"),
        (("show", "--output", "episode.jpg"), "--output episode.jpg does not end with .png"),
        (("freeze", "--n-way", "71"), "70 classes cannot make a 71-way episode"),
        (("freeze", "--split", "novel"), "glyphs has no split 'novel'"),
    ],
)
def test_other_refusals(run: Run, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(FewShotNSLError, match=message):
        run("episodes", *arguments)
