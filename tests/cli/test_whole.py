"""The real command line, end to end on glyphs: what a person sees, and what is left when things go wrong."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fewshot_nsl.workspace import Workspace

SMALL = ("--width", "4", "--epochs", "2", "--batch-size", "256")
"""Seconds of training, not a good backbone."""
FEW = ("--iterations", "3", "--meta-batch", "1", "--inner-steps", "2", "--validation-episodes", "4")
MAML = ("meta-train", "--strategy", "maml", "--width", "4", "--validate-every", "1", *FEW)


def start(
    folder: Path, *arguments: str, prepare: Callable[[], None] | None = None, variables: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    environment = os.environ | {"COLUMNS": "160", "OMP_NUM_THREADS": "1"} | dict(variables or {})
    command = [sys.executable, "-m", "fewshot_nsl", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare
    )


def run(
    folder: Path,
    *arguments: str,
    code: int = 0,
    prepare: Callable[[], None] | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Standard output and standard error."""
    process = start(folder, *arguments, prepare=prepare, variables=variables)
    output, error = process.communicate(timeout=300)
    assert process.returncode == code, error
    assert "Traceback" not in error
    return output, error


def refused(folder: Path, *arguments: str, prepare: Callable[[], None] | None = None, variables: Mapping[str, str] | None = None) -> str:
    """The one line on standard error of a command that exits 1."""
    _, error = run(folder, *arguments, code=1, prepare=prepare, variables=variables)
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert error.rstrip().endswith(lines[0])
    return lines[0]


@pytest.fixture(scope="module")
def trained(glyph_workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which everything was trained, bare but for sizes."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(glyph_workspace.root, folder, dirs_exist_ok=True)
    _, error = run(folder, "pretrain", *SMALL)
    assert "using the embedded glyphs" in error
    output, error = run(folder, "meta-train", "--strategy", "meta-static", *FEW)
    assert "Starting from runs/glyphs/cnn4/plain/seed0-" in error
    assert "glyphs meta-static: validation accuracy" in output
    run(folder, "meta-train", "--strategy", "meta-classifier", *FEW)
    output, error = run(folder, *MAML)
    assert "Starting from" not in error
    assert "glyphs maml: validation accuracy" in output
    return folder


@pytest.fixture
def workspace(glyph_workspace: Workspace, tmp_path: Path) -> Path:
    """An untrained workspace of its own."""
    shutil.copytree(glyph_workspace.root, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_last_command_gives_the_table_and_the_file(trained: Path) -> None:
    output, _ = run(trained, "evaluate", "--episodes", "20", "--output", "table.json")
    titles = [
        "plain, nearest class mean",
        "plain, retrained classifier",
        "plain, nearest neighbour",
        "plain, SimpleShot",
        "plain, cosine classifier",
        "plain, ridge regression",
        "plain, finetuned",
        "plain, BN finetuned",
        "MAML (transductive)",
        "static NSN, finetuned",
        "static NSN, meta-learned",
        "plain, meta-learned classifier",
        "dynamic NSN",
    ]
    positions = [output.index(title) for title in titles]
    assert positions == sorted(positions)
    result = json.loads((trained / "table.json").read_text())
    assert result["dataset"] == "glyphs"
    assert result["command"] == "fewshot-nsl evaluate --episodes 20 --output table.json"
    assert output.count("transductive") == 1
    assert "Rows are inductive where not marked." in " ".join(output.split())
    assert result["rows"][0]["accuracy"] > 0.25  # chance is 0.2, and even this little training shows
    for row in result["rows"]:
        assert row["accuracy"] == pytest.approx(sum(row["accuracies"]) / 20)
        assert f"{100 * row['accuracy']:.2f} ± {100 * row['ci95']:.2f}" in output
        assert row["transductive"] is (row["strategy"] == "maml")
        assert row["trained_on"] == "glyphs"
        assert (trained / row["checkpoint"]).is_file()


def test_results_are_kept_under_a_name_of_their_own(trained: Path) -> None:
    for _ in range(2):
        run(trained, "evaluate", "--episodes", "2", "--strategy", "nearest-mean")
    names = [path.name for path in (trained / "evaluate" / "results").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json", name) for name in names)


def test_a_row_does_not_depend_on_the_others(trained: Path) -> None:
    run(trained, "evaluate", "--episodes", "5", "--output", "all.json")
    run(trained, "evaluate", "--episodes", "5", "--strategy", "static", "--output", "one.json")
    rows = {row["strategy"]: row for row in json.loads((trained / "all.json").read_text())["rows"]}
    (row,) = json.loads((trained / "one.json").read_text())["rows"]
    assert row["accuracies"] == rows["static"]["accuracies"]


def test_engines_give_the_same_and_are_written_down(trained: Path) -> None:
    rows = {}
    for engine in ("higher", "plain"):
        run(trained, "evaluate", "--episodes", "5", "--strategy", "static", "--engine", engine, "--output", f"{engine}.json")
        written = json.loads((trained / f"{engine}.json").read_text())
        assert written["engine"] == engine
        rows[engine] = written["rows"][0]["accuracies"]
    assert rows["higher"] == pytest.approx(rows["plain"], abs=0.02)


def test_training_takes_an_engine_and_parts_of_a_meta_batch(workspace: Path, trained: Path) -> None:
    run(workspace, *MAML, "--engine", "higher", "--tasks-at-once", "1")
    (best,) = (workspace / "runs").rglob("last.safetensors")
    assert json.loads((best.parent / "run.json").read_text())["engine"] == "higher"
    other = load_file(trained / best.relative_to(workspace))
    weights = {name: value for name, value in load_file(best).items() if name.startswith("backbone")}
    assert weights
    for name, value in weights.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4)


def test_without_a_compiler_one_line_says_so_and_work_goes_on(trained: Path, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path), "CXX": "", "XDG_CACHE_HOME": str(tmp_path)}
    _, error = run(trained, "evaluate", "--episodes", "2", "--strategy", "static", "--output", "bare.json", variables=bare)
    lines = [line for line in error.splitlines() if "compile" in line]
    assert len(lines) == 1
    assert lines[0].startswith("Using torch's own operators, --engine plain: kernels cannot be compiled: no C++ compiler was found")
    assert json.loads((trained / "bare.json").read_text())["engine"] == "plain"
    request = ("evaluate", "--episodes", "2", "--strategy", "static", "--engine", "fast")
    assert "no C++ compiler was found" in refused(trained, *request, variables=bare)


def test_a_finished_run_is_not_trained_again(trained: Path) -> None:
    best = next((trained / "runs" / "glyphs" / "cnn4" / "plain").glob("*/best.safetensors"))
    before = best.stat().st_mtime_ns
    run(trained, "pretrain", "--network", "plain", *SMALL)
    assert best.stat().st_mtime_ns == before


def test_checkpoints_say_what_they_are(trained: Path) -> None:
    for path in (trained / "runs").rglob("best.safetensors"):
        with safe_open(path, framework="pt") as file:
            card = json.loads(file.metadata()["card"])
        assert card["dataset"] == "glyphs"
        assert card["network"] == path.parent.parent.name
        assert len(card["fingerprint"]) == 64


@pytest.mark.parametrize("arguments", [("pretrain", "--network", "plain", *SMALL), MAML], ids=["plain", "maml"])
def test_killed_training_goes_on_to_the_same_weights(workspace: Path, trained: Path, arguments: tuple[str, ...]) -> None:
    process = start(workspace, *arguments)
    while not list((workspace / "runs").rglob("last.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    run(workspace, *arguments)
    (resumed,) = (workspace / "runs").rglob("last.safetensors")
    whole = load_file(trained / resumed.relative_to(workspace))
    assert all(value.equal(whole[name]) for name, value in load_file(resumed).items())
    steps = [line.split(",")[0] for line in (resumed.parent / "log.csv").read_text().splitlines()[1:]]
    assert steps == [str(i) for i in range(len(steps))]


def test_interrupt_leaves_a_checkpoint_and_says_how_to_go_on(workspace: Path) -> None:
    process = start(workspace, "pretrain", "--network", "plain", "--epochs", "1000", "--width", "4")
    while not any(path.read_text().count("\n") > 2 for path in (workspace / "runs").rglob("log.csv")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"error: stopped by SIGINT after step \d+ of \d+; run the same command again", error)
    assert len(list((workspace / "runs").rglob("last.safetensors"))) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("pretrain", "--dataset", "nope"), "no dataset is called 'nope'; there are: cifar-fs, cub, fc100, glyphs, mini-imagenet"),
        (("pretrain", "--dataset", "cifar-fs"), "run: fewshot-nsl data prepare cifar-fs"),
        (("pretrain", "--backbone", "vgg"), "backbone 'vgg' is unknown: expected one of cnn4"),
        (("pretrain", "--network", "spiral"), "network of PretrainConfig"),
        (("pretrain", "--lr", "-1"), "lr of PretrainConfig"),
        (("pretrain", "--width", "0"), "--width"),
        (("meta-train",), "train it first: fewshot-nsl pretrain --dataset glyphs --network plain"),
        (
            ("meta-train", "--strategy", "nearest-mean"),
            "strategy 'nearest-mean' is not trained on episodes: expected one of maml, ",
        ),
        (("meta-train", "--strategy", "maml", "--inner-lr-classifier", "1"), "maml has no setting 'inner_lr_classifier'"),
        (
            ("meta-train", "--strategy", "meta-classifier", "--inner-lr-classifier", "1"),
            "meta-classifier has no setting 'inner_lr_classifier'",
        ),
        (("meta-train", "--strategy", "maml", "--backbone", "vgg"), "backbone 'vgg' is unknown: expected one of cnn4"),
        (("meta-train", "--width", "8"), "meta-static has no setting 'width': expected some of precision, strategy, n_way"),
        (("evaluate", "--strategy", "maml"), "train one: fewshot-nsl meta-train --strategy maml --dataset glyphs"),
        (("evaluate",), "train first: fewshot-nsl pretrain --dataset glyphs"),
        (("evaluate", "--strategy", "magic"), "strategy 'magic' is unknown: expected one of nearest-mean"),
        (("evaluate", "--checkpoint", "none.safetensors"), "checkpoint none.safetensors does not exist"),
        (("evaluate", "--workspace", "nowhere"), "is not a folder"),
        (("evaluate", "--episodes", "many"), "--episodes"),
        (("bench", "--strategy", "dynamic"), "strategy 'dynamic' cannot be timed: expected one of maml, meta-static"),
        (("bench", "--output", "."), "'--output'"),
        (("train",), "No such command 'train'"),
    ],
)
def test_bad_requests_get_one_line(workspace: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused(workspace, *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--n-way", "71"), "70 classes cannot make a 71-way episode; ask for fewer ways (--n-way)"),
        (
            ("--n-shot", "50"),
            "class u0532-armenian-capital-ben has 60 images, an episode takes 50 shots and 15 queries = 65; ask for fewer",
        ),
        (("--engine", "quick"), "engine 'quick' is unknown: expected one of auto, higher, fast, plain"),
        (("--n-way", "3"), "maml learned a 5-way classifier, the episodes have 3 ways; use --n-way 5"),
        (("--split", "holdout"), "glyphs has no split 'holdout'; there are: train, val, test"),
        (("--seed", "1"), "no strategy has a checkpoint for glyphs, cnn4, seed 1"),
    ],
)
def test_impossible_evaluations_get_one_line(trained: Path, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused(trained, "evaluate", "--episodes", "2", *arguments)


def test_cuda_is_refused_where_there_is_none(workspace: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "device cuda: torch" in refused(workspace, "pretrain", "--device", "cuda")


def test_checkpoint_of_another_network_is_refused(trained: Path) -> None:
    dynamic = next((trained / "runs" / "glyphs" / "cnn4" / "dynamic").glob("*/best.safetensors"))
    error = refused(trained, "meta-train", "--strategy", "maml", "--checkpoint", str(dynamic))
    assert "maml starts from scratch: expected no checkpoint" in error
    assert "is of network 'dynamic': meta-static starts from 'plain'" in refused(trained, "meta-train", "--checkpoint", str(dynamic))
    error = refused(trained, "evaluate", "--checkpoint", str(dynamic), "--strategy", "static")
    assert "strategy static has no checkpoint of network 'plain'" in error


def test_damaged_checkpoint_is_refused(trained: Path, tmp_path: Path) -> None:
    whole = next((trained / "runs" / "glyphs" / "cnn4" / "plain").glob("*/best.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(whole.read_bytes()[:1000])
    assert f"checkpoint {broken} is damaged" in refused(trained, "evaluate", "--checkpoint", str(broken))


def test_two_finished_runs_are_listed_and_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run(tmp_path, "pretrain", "--network", "plain", *SMALL, "--no-augment")
    error = refused(tmp_path, "evaluate", "--episodes", "2")
    assert "2 finished runs of glyphs cnn4 plain seed 0: choose one with --checkpoint: runs/glyphs/cnn4/plain/seed0-" in error


def test_full_disk_loses_nothing(workspace: Path) -> None:
    """A limit on the size of files stands for the disk: the first checkpoint does not fit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    refused(workspace, "pretrain", "--network", "plain", *SMALL, prepare=limit)
    assert not list((workspace / "runs").rglob("*.safetensors*"))
    run(workspace, "pretrain", "--network", "plain", *SMALL)
    assert len(list((workspace / "runs").rglob("best.safetensors"))) == 1


def test_help_names_the_commands_and_is_quick_to_load(tmp_path: Path) -> None:
    output, _ = run(tmp_path, "--help")
    assert all(name in output for name in ("quickstart", "data", "pretrain", "meta-train", "evaluate", "bench"))
    heavy = "import fewshot_nsl.cli, sys; print({'torch', 'pandas', 'numpy', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_version(tmp_path: Path) -> None:
    output, _ = run(tmp_path, "--version")
    assert re.fullmatch(r"fewshot-nsl \d+\.\d+\.\d+\n", output)


def test_a_precision_is_chosen_and_written_down(trained: Path) -> None:
    run(trained, "evaluate", "--episodes", "5", "--strategy", "dynamic", "--precision", "bfloat16", "--output", "half.json")
    assert json.loads((trained / "half.json").read_text())["precision"] == "bfloat16"
    assert (
        refused(trained, "evaluate", "--precision", "half") == "error: precision 'half' is unknown: expected one of float32, tf32, bfloat16"
    )
    for command, config in (("pretrain", "PretrainConfig"), ("meta-train", "MetaStaticConfig")):
        message = refused(trained, command, "--precision", "half")
        assert message == f"error: precision of {config}: Input should be 'float32', 'tf32' or 'bfloat16', got 'half'"
        message = refused(trained, command, "--device", "cpu", "--precision", "tf32")
        assert message == "error: precision tf32 is of GPUs, and this runs on a CPU: use --precision float32 or bfloat16"
    message = refused(trained, "pretrain", "--precision", "bfloat16", "--engine", "fast", *SMALL)
    assert message.startswith("error: engine fast computes in float32")
