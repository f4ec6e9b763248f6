"""Where files live: the workspace (a folder of the user's) and what travels with the package."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fewshot_nsl.errors import ConfigurationError

_PACKAGE = Path(__file__).parent
_SHIPPED = _PACKAGE / "shipped" if (_PACKAGE / "shipped").is_dir() else _PACKAGE.parent
"""Cards and recipes: inside an installed wheel, or the repository root of a checkout."""


@dataclass(frozen=True)
class Workspace:
    """A folder with `data/`, `episodes/`, `runs/` and `evaluate/`, each made when first written to."""

    root: Path

    @property
    def data(self) -> Path:
        """Prepared stores and the workspace's own cards."""
        return self.root / "data"

    @property
    def runs(self) -> Path:
        """Checkpoints and logs."""
        return self.root / "runs"

    @property
    def results(self) -> Path:
        """One JSON file an evaluation."""
        return self.root / "evaluate" / "results"

    def relative(self, path: Path) -> Path:
        """`path` as seen from the workspace, or as it is where it lies elsewhere."""
        resolved = path.resolve()
        return resolved.relative_to(self.root) if resolved.is_relative_to(self.root) else path

    def find(self, relative: str) -> Path | None:
        """The workspace's own file of this name, else the one that travels with the package, else None."""
        candidates = (self.root / relative, _SHIPPED / relative)
        return next((path for path in candidates if path.is_file()), None)

    def list(self, folder: str, suffix: str) -> list[str]:
        """Sorted names, without `suffix`, of the files under `folder` that end with it, the workspace's own and the package's."""
        roots = (self.root / folder, _SHIPPED / folder)
        paths = [path.relative_to(root) for root in roots if root.is_dir() for path in root.rglob(f"*{suffix}")]
        return sorted({path.as_posix().removesuffix(suffix) for path in paths})


def open_workspace(root: Path | str = ".") -> Workspace:
    """The workspace at `root`.

    Raises:
        ConfigurationError: `root` is not a folder.
    """
    path = Path(root).resolve()
    if not path.is_dir():
        raise ConfigurationError(f"workspace {path} is not a folder; make it first: mkdir -p '{path}'")
    return Workspace(path)


@contextmanager
def moved_into_place(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is flushed to disk and replaces `path` in one step, on failure it is removed.

    A reader therefore sees the old file or the new one, never half of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        with aside.open("rb+") as file:
            os.fsync(file.fileno())
        aside.chmod(0o644)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def file_checksum(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
