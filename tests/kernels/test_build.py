import os
import subprocess
import sys
from pathlib import Path

import pytest

from fewshot_nsl.errors import KernelError
from fewshot_nsl.kernels import NativeKernels, build_native, choose_native

FAKE = """#!/bin/sh
echo run >> {count}
cat > /dev/null
sleep {seconds}
while [ "$1" != -o ]; do shift; done
echo compiled > "$2"
"""
"""A compiler that counts how often it was called."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fewshot-nsl"


def _write_compiler(folder: Path, text: str) -> Path:
    program = folder / "compiler"
    program.write_text(text)
    program.chmod(0o755)
    return program


def test_what_was_compiled_is_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = tmp_path / "count"
    monkeypatch.setenv("CXX", str(_write_compiler(tmp_path, FAKE.format(count=count, seconds=0))))
    said: list[str] = []
    library = build_native(said.append)
    assert (library.read_text(), [*cache.iterdir()]) == ("compiled\n", [library])
    assert said == ["Compiling kernels for this processor, once (some 10 to 30 seconds)."]
    assert build_native(said.append) == library
    assert (len(said), count.read_text()) == (1, "run\n")


def test_another_compiler_is_another_library(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        program = _write_compiler(tmp_path / name, FAKE.format(count=tmp_path / "count", seconds=0))
        monkeypatch.setenv("CXX", str(program))
        made.add(build_native())
    assert len(made) == len([*cache.iterdir()]) == 2


def test_two_processes_may_compile_at_once(cache: Path, tmp_path: Path) -> None:
    program = _write_compiler(tmp_path, FAKE.format(count=tmp_path / "count", seconds=0.5))
    command = [sys.executable, "-c", "from fewshot_nsl.kernels import build_native; print(build_native())"]
    environment = os.environ | {"CXX": str(program)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = {process.communicate()[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert found == {str(path) for path in cache.iterdir()}


def test_without_a_compiler_the_line_says_what_to_do(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    message = "^kernels cannot be compiled: no C\\+\\+ compiler was found, neither CXX nor c\\+\\+; install one, or use --engine plain$"
    with pytest.raises(KernelError, match=message):
        build_native()
    assert not cache.exists()


def test_a_compiler_that_fails_is_quoted(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = _write_compiler(tmp_path, "#!/bin/sh\ncat > /dev/null\necho 'fatal error: no such file' >&2\nexit 3\n")
    monkeypatch.setenv("CXX", str(program))
    with pytest.raises(KernelError, match="compiler ended with 3: fatal error: no such file; set CXX to another compiler"):
        build_native()
    assert not [*cache.iterdir()]


def test_a_cache_that_cannot_be_written_is_a_line_and_auto_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("CXX", str(_write_compiler(tmp_path, FAKE.format(count=tmp_path / "count", seconds=0))))
    with pytest.raises(KernelError, match=r"kernels cannot be kept in .*file.fewshot-nsl: .*; set XDG_CACHE_HOME"):
        build_native()
    said: list[str] = []
    assert choose_native(announce=said.append) is None
    assert said[-1].startswith("Using torch's own operators, --engine plain: kernels cannot be kept")


def test_a_damaged_library_is_a_line(cache: Path) -> None:
    cache.mkdir()
    library = cache / "kernels-0.so"
    library.write_bytes(b"\x7fELF")
    with pytest.raises(KernelError, match=f"^{library} cannot be loaded: .*; delete it, or use --engine plain$"):
        NativeKernels(library)
