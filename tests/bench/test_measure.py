import json
import sys
import time
from functools import partial

import pytest
import torch

from fewshot_nsl.bench import figure, medians, milliseconds, peak_megabytes, report

CPU = torch.device("cpu")


def test_works_take_turns_after_two_rounds_to_warm_up() -> None:
    order: list[str] = []
    times = medians({name: partial(order.append, name) for name in ("a", "b")}, CPU, rounds=3)
    assert order == ["a", "b"] * 5
    assert list(times) == ["a", "b"]


def test_the_median_counts_no_warming_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 900.0, 0.0, 800.0, 0.0, 3.0, 0.0, 50.0, 0.0, 4.0])  # begin and end of five runs, in seconds
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert medians({"a": lambda: None}, CPU, rounds=3) == {"a": 4000.0}


def test_a_run_is_told_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 1.25])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert milliseconds(lambda: None, CPU) == 250.0


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc")
def test_the_peak_is_what_was_held_at_once() -> None:
    size = 40 * 2**20

    def work() -> None:
        for _ in range(3):
            held = bytearray(size)  # zeros of the system are not there before they are written
            held[:: 2**10] = b"x" * (size // 2**10)
            del held

    held_before = bytearray(b"x") * (2 * size)
    del held_before
    assert 39 < peak_megabytes(work, CPU) < 60


def test_a_figure_is_one_line_of_json() -> None:
    line = figure("step: time over peer", 2.0, 8.0, "ms", CPU)
    assert "\n" not in line
    values = json.loads(line)
    assert values.pop("hardware")
    assert values == {"name": "step: time over peer", "ours": 2.0, "peer": 8.0, "ratio": 0.25, "unit": "ms", "torch": torch.__version__}


def test_a_report_prints_the_figure(capsys: pytest.CaptureFixture[str]) -> None:
    report("a", 1.0, 3.0, "MB", CPU)
    assert capsys.readouterr().out == figure("a", 1.0, 3.0, "MB", CPU) + "\n"
