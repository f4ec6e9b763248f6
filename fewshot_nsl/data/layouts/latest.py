"""What is read from large files, one at a time in memory."""

from collections.abc import Callable
from typing import Generic, TypeVar

Content = TypeVar("Content")


class Latest(Generic[Content]):
    """`latest(key)` is `read(key)`; only the latest is kept, and it is let go of before another is read (a cache would hold both)."""

    def __init__(self, read: Callable[[str], Content]) -> None:
        self._read = read
        self._kept: tuple[str, Content] | None = None

    def __call__(self, key: str) -> Content:
        """What `read` gives for `key`."""
        if self._kept is None or self._kept[0] != key:
            self._kept = None
            self._kept = key, self._read(key)
        return self._kept[1]
