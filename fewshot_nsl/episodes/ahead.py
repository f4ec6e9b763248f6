"""Work done ahead on a thread, in order."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def make_ahead(make: Callable[[int], T], count: int, ahead: int) -> Iterator[T]:
    """`make(0) ... make(count - 1)`, of which one thread makes up to `ahead` while the caller works with those before.

    What `make` raises is raised here, in its turn. When the iteration ends, or is left, so does the thread; only what it is making then is
    waited for.
    """
    if ahead == 0:
        yield from map(make, range(count))
        return
    pool = ThreadPoolExecutor(max_workers=1)
    made: deque[Future[T]] = deque()
    try:
        for index in range(count):
            made.append(pool.submit(make, index))
            if len(made) > ahead:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
