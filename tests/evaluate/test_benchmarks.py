"""The benchmarks run; what they measure is no matter of a test."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "evaluate" / "benchmarks"


@pytest.mark.parametrize(
    ("script", "arguments", "figures"),
    [
        ("similarity.py", ["--sizes", "8x16x24"], 13),
        ("loading.py", ["--images-per-class", "20"], 3),
        ("pooling.py", ["--sizes", "4x32"], 2),
        ("preparing.py", ["--images", "60"], 3),
        ("meta_step.py", ["--sizes", "16", "--tasks", "1", "--engine", "plain", "--peers", "higher", "--strategies", "maml"], 3),
        ("evaluating.py", ["--sizes", "16", "--images-per-class", "25", "--episodes", "20", "--engine", "plain"], 5),
        ("pretraining.py", ["--sizes", "16", "--batch", "4", "--steps", "1"], 6),
    ],
)
def test_a_benchmark_runs_alone_and_ends_with_a_line_of_json_a_figure(script: str, arguments: list[str], figures: int) -> None:
    command = [sys.executable, str(FOLDER / script), "--rounds", "1", "--device", "cpu", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len({line["name"] for line in lines}) == figures
    assert all(line.keys() == {"name", "ours", "peer", "ratio", "unit", "hardware", "torch"} for line in lines)
