import json
import os
import subprocess
import sys
from pathlib import Path

SMALLEST = ("--image-size", "16", "--tasks", "1", "--rounds", "1", "--strategy", "meta-static", "--device", "cpu")


def test_prints_the_machine_the_table_and_the_file_where_nothing_can_be_compiled(tmp_path: Path) -> None:
    file, nowhere = tmp_path / "missing" / "folder" / "bench.jsonl", str(tmp_path)
    environment = os.environ | {"COLUMNS": "50", "PATH": nowhere, "CXX": "nothing", "XDG_CACHE_HOME": nowhere}
    command = [sys.executable, "-m", "fewshot_nsl", "bench", *SMALLEST, "--output", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("Using torch's own operators, --engine plain: kernels cannot be compiled")
    assert "Timing meta-static in turn: ours, higher" in done.stderr
    assert "GFLOP/s in a large float32 product" in done.stdout
    assert "One meta-step, CNN-4, 32 filters: 16x16, 1 task, 5 steps" in done.stdout
    assert all(f"│ {row}" in done.stdout for row in ("ours, plain", "floor", "higher"))
    assert max(map(len, done.stdout[done.stdout.index("┏") : done.stdout.index("┘")].splitlines())) <= 50
    names = [json.loads(line)["name"] for line in file.read_text().splitlines()]
    assert names[:2] == [f"meta-static, 16x16, 1 task, 5 steps, plain: time over {peer}" for peer in ("floor", "higher")]
