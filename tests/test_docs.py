"""The guides do what they say: their Python blocks run, and the commands they show exist."""

import re
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

from fewshot_nsl.cli import app
from fewshot_nsl.workspace import Workspace

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, glyph_workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(glyph_workspace.root, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    group = get_command(app)
    for words in re.findall(r"fewshot-nsl ([a-z][^`\n#]*)", page.read_text()):
        name, *rest = words.split()
        command = group.commands[name]  # type: ignore[attr-defined]
        if hasattr(command, "commands") and rest and rest[0].isalpha():
            command = command.commands[rest[0]]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert set(re.findall(r"--[a-z-]+", words)) <= known, f"fewshot-nsl {words}"


def test_readme_names_what_it_links_to() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
