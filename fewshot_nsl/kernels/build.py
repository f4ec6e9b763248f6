"""Compiles the kernels for this processor, once: the library is kept in the user's cache, by all that decides what is in it."""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.cpp_extension import include_paths, library_paths

from fewshot_nsl.devices import processor_name
from fewshot_nsl.errors import KernelError

_FOLDER = Path(__file__).parent
_SOURCES = ("pooling.cpp", "affine_relu.cpp", "first_layer.cpp", "at_places.cpp")
_FLAGS = ("-std=c++20", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi", "-Wno-unknown-pragmas")


def compiler() -> str | None:
    """The C++ compiler: `CXX` of the environment, or the system's; None if there is none."""
    return shutil.which(os.environ.get("CXX") or "c++") or shutil.which("g++") or shutil.which("clang++")


def build_native(announce: Callable[[str], None] | None = None) -> Path:
    """The library of kernels, compiled if this is the first time.

    Args:
        announce: called with a line before compiling, which takes some 10 to 30 seconds.

    Raises:
        KernelError: there is no C++ compiler, it failed, or the cache cannot be written.
    """
    library = _cache_folder() / f"kernels-{_identity()}.so"
    if library.is_file():
        return library
    program = compiler()
    if program is None:
        raise KernelError("kernels cannot be compiled: no C++ compiler was found, neither CXX nor c++; install one, or use --engine plain")
    if announce:
        announce("Compiling kernels for this processor, once (some 10 to 30 seconds).")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder) / library.name
            _compile(program, made)
            # Two processes may both have compiled: either file will do.
            made.replace(library)
    except OSError as error:
        raise KernelError(f"kernels cannot be kept in {library.parent}: {error}; set XDG_CACHE_HOME, or use --engine plain") from error
    return library


def _compile(program: str, target: Path) -> None:
    paths = [f"-isystem{path}" for path in include_paths()]
    links = [f"-L{path}" for path in library_paths()]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    command = [program, *_FLAGS, abi, *paths, f"-I{_FOLDER}", "-xc++", "-", "-o", str(target), *links, "-ltorch_cpu", "-lc10"]
    # In one piece, since most of the time goes into torch's headers.
    whole = "".join(f'#include "{source}"\n' for source in _SOURCES)
    done = subprocess.run(command, input=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        problem = next((line for line in done.stderr.splitlines() if "error" in line), "it said nothing")
        raise KernelError(
            f"kernels cannot be compiled: {shlex.quote(program)} ended with {done.returncode}: {problem.strip()}; "
            "set CXX to another compiler, or use --engine plain"
        )


def _identity() -> str:
    """Of what decides the library: the sources, torch, the processor, the compiler and its flags."""
    digest = hashlib.sha256()
    for path in [_FOLDER / "common.h", *(_FOLDER / source for source in _SOURCES)]:
        digest.update(path.read_bytes())
    for part in (torch.__version__, processor_name(), _instructions(), str(compiler()), *_FLAGS):
        digest.update(f"\0{part}".encode())
    return digest.hexdigest()[:16]


def _instructions() -> str:
    """What the processor can do: virtual machines of one name differ in it, and a cache may serve many."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return torch.backends.cpu.get_cpu_capability()
    return next((line for line in information.read_text().splitlines() if line.startswith(("flags", "Features"))), "")


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fewshot-nsl"
