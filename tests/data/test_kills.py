"""kill -9 at random points of `prepare`: what is left is never taken for a store, and the next call puts everything right."""

import subprocess
import sys
from pathlib import Path

import pytest

import fewshot_nsl
from fewshot_nsl.workspace import Workspace

ROOT = Path(fewshot_nsl.__file__).parents[1]

SCRIPT = """
import os, random, shutil, signal, sys
from pathlib import Path
from fewshot_nsl.data import prepare, prepared_stores, verify
from fewshot_nsl.workspace import open_workspace

workspace, source, replacing = open_workspace(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "replacing"
TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.chmod", "os.scandir"}

def child(work):
    # Forked before anything has a thread: importing once pays for all the deaths.
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def prepare_until(death, report=None):
    events = 0
    def hook(event, _):
        nonlocal events
        if event in TOUCHES:
            if events == death:
                os.kill(os.getpid(), signal.SIGKILL)
            events += 1
    sys.addaudithook(hook)
    prepare(workspace, "cifar-fs", source, force=True)
    if report:
        os.write(report, events.to_bytes(4))

def begin():
    shutil.rmtree(workspace.data / "cifar-fs", ignore_errors=True)
    if replacing:
        assert child(lambda: prepare(workspace, "cifar-fs", source)) == 0

begin()
reading, writing = os.pipe()
assert child(lambda: prepare_until(-1, writing)) == 0
events = int.from_bytes(os.read(reading, 4))
deaths = sorted(random.Random(0).sample(range(events), 30))
for death in deaths:
    begin()
    assert os.WTERMSIG(child(lambda: prepare_until(death))) == signal.SIGKILL
    if prepared_stores(workspace):
        assert child(lambda: verify(workspace, "cifar-fs")) == 0, death
    if replacing:
        assert child(lambda: prepare(workspace, "cifar-fs")) == 0, death  # from no source: the old store or the new one is there
    assert child(lambda: prepare(workspace, "cifar-fs", source, force=True)) == 0, death
    assert child(lambda: verify(workspace, "cifar-fs")) == 0, death
    left = {path.name for path in workspace.data.iterdir()} - {"cards", "cifar-fs", ".cifar-fs.lock"}
    assert not left, (death, left)
print(len(deaths), "of", events)
"""


@pytest.mark.parametrize("occasion", ["first", "replacing"])
def test_a_preparation_may_be_killed_at_any_point(workspace: Workspace, cifar_folders: Path, occasion: str) -> None:
    command = [sys.executable, "-c", SCRIPT, str(workspace.root), str(cifar_folders), occasion]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 of ")
