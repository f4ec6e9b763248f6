"""Which images make an episode: a pure function of a seed and the episode's number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64
from numpy.random import Philox

from fewshot_nsl.episodes.episode import Episode
from fewshot_nsl.errors import EpisodeError

_CLASSES, _SUPPORT, _QUERY = range(3)
"""Each has its own stream of random words, so that changing n_query moves no support."""


class EpisodeSampler:
    """`sampler[i]` is episode i, the same whatever was asked before, on every machine and with every version of numpy.

    Raw Philox words (Salmon et al. 2011) and a partial Fisher-Yates shuffle of ours: numpy's own distributions may change. A word of 64
    bits is reduced modulo the number left, a bias under 2^-50. The supports of a 1-shot episode are the first of the 5-shot one; support
    and query never share an image; classes are distinct.

    Args:
        labels: class id of every row; rows with a negative one take no part.
        n_way: classes of an episode.
        n_shot: support images of each class, or one number per way.
        n_query: query images of each class.
        seed: 0 to 2^64 - 1.
        names: of the classes by id, for refusals; without them a class is called by its id.

    Raises:
        EpisodeError: fewer classes than `n_way`, a class with fewer images than shots and queries, sizes under 1, a seed out of range.
    """

    def __init__(
        self,
        labels: Int64[np.ndarray, " n"],
        n_way: int,
        n_shot: int | Sequence[int],
        n_query: int,
        seed: int,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        shots = [n_shot] * n_way if isinstance(n_shot, int) else list(n_shot)
        if n_way < 1 or n_query < 1 or not shots or min(shots) < 1:
            raise EpisodeError(f"an episode of {n_way} ways, {n_shot} shots and {n_query} queries: each is to be at least 1")
        if len(shots) != n_way:
            raise EpisodeError(f"n_shot lists {len(shots)} numbers for {n_way} ways: expected one per way")
        if not 0 <= seed < 2**64:
            raise EpisodeError(f"seed {seed} is out of range: expected 0 to 2^64 - 1")
        self.n_way, self.n_query, self.seed = n_way, n_query, seed
        self.n_shot = tuple(shots)
        order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        self.classes, starts = np.unique(labels[order], return_index=True)
        self._rows = [rows.tolist() for rows in np.split(order, starts[1:])]
        if len(self.classes) < n_way:
            raise EpisodeError(f"{len(self.classes)} classes cannot make a {n_way}-way episode; ask for fewer ways (--n-way)")
        needed = max(shots) + n_query
        smallest = min(range(len(self._rows)), key=lambda i: len(self._rows[i]))
        held, label = len(self._rows[smallest]), self.classes[smallest]
        if held < needed:
            raise EpisodeError(
                f"class {names[label] if names else label} has {held} images, an episode takes {max(shots)} shots and {n_query} queries = "
                f"{needed}; ask for fewer (--n-shot, --n-query)"
            )

    @property
    def rows(self) -> Int64[np.ndarray, " rows"]:
        """Every row that an episode may show, ascending."""
        return np.sort(np.concatenate([np.asarray(rows) for rows in self._rows]))

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, any number from 0 to 2^64 - 1."""
        if not 0 <= index < 2**64:
            raise EpisodeError(f"episode {index} is out of range: expected 0 to 2^64 - 1")
        way = range(self.n_way)
        chosen = _draw(list(range(len(self.classes))), self._words(index, _CLASSES, self.n_way))
        most = max(self.n_shot)
        # Words go shot by shot, so that the first shot's do not depend on how many follow.
        words = self._words(index, _SUPPORT, most * self.n_way)
        support = [_draw(self._rows[c], words[i :: self.n_way])[: self.n_shot[i]] for i, c in enumerate(chosen)]
        words = self._words(index, _QUERY, (most + self.n_query) * self.n_way)
        query = []
        for i, c in enumerate(chosen):
            taken = set(support[i])
            query.append([row for row in _draw(self._rows[c], words[i :: self.n_way]) if row not in taken][: self.n_query])
        return Episode(
            classes=self.classes[chosen],
            support_rows=np.array([row for rows in support for row in rows]),
            support_labels=np.repeat(way, self.n_shot),
            query_rows=np.array([row for rows in query for row in rows]),
            query_labels=np.repeat(way, self.n_query),
        )

    def _words(self, index: int, stream: int, count: int) -> list[int]:
        """`count` random words that belong to this seed, episode and stream alone; the counter's first word is Philox's own."""
        # As unsigned numbers of 64 bits: numpy turns a list with larger ones into floats.
        key, counter = np.array([self.seed, 0], dtype=np.uint64), np.array([0, index, stream, 0], dtype=np.uint64)
        words: list[int] = Philox(key=key, counter=counter).random_raw(count).tolist()
        return words


def _draw(items: list[int], words: list[int]) -> list[int]:
    """As many of `items` as there are words, in random order, none twice: Fisher-Yates that remembers only the moved places."""
    moved: dict[int, int] = {}
    drawn = []
    for i, word in enumerate(words):
        j = i + word % (len(items) - i)
        drawn.append(items[moved.get(j, j)])
        moved[j] = moved.get(i, i)
    return drawn
