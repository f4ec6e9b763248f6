import sys
from pathlib import Path

import pytest

from fewshot_nsl.bench import PEERS, Peer, installed_peers


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `made_up` that can be imported, and stands for iteryne."""
    module = tmp_path / "made_up.py"
    module.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PEERS, "iteryne", Peer("made_up", PEERS["iteryne"].meta_step))
    return module


def test_higher_is_always_there() -> None:
    assert "higher" in installed_peers(pytest.fail)


@pytest.mark.usefixtures("library")
def test_only_those_asked_for() -> None:
    assert list(installed_peers(pytest.fail, ["iteryne"])) == ["iteryne"]
    sys.modules.pop("made_up")


def test_what_is_not_installed_is_passed_over(library: Path) -> None:
    library.unlink()
    assert installed_peers(pytest.fail, ["iteryne"]) == {}


def test_what_cannot_be_imported_is_left_out_with_a_notice(library: Path) -> None:
    library.write_text("raise RuntimeError('operator\\nmissing')")
    said: list[str] = []
    assert installed_peers(said.append, ["iteryne"]) == {}
    assert said == ["iteryne is installed, but its import fails, so it is left out: operator missing"]
