"""Which images make an episode: a pure function of a seed and the episode's number."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt64

from fewshot_nsl.episodes.episode import Episode
from fewshot_nsl.episodes.shuffle import draw_places, random_words
from fewshot_nsl.errors import EpisodeError


class EpisodeSampler:
    """`sampler[i]` is episode i, the same whatever was asked before, on every machine and with every version of numpy.

    Raw Philox words and a partial Fisher-Yates shuffle of ours: numpy's own distributions may change. The supports of a 1-shot episode are
    the first of the 5-shot one; support and query never share an image; classes are distinct.

    Args:
        labels: class id of every row; rows with a negative one take no part.
        n_way: classes of an episode.
        n_shot: support images of each class, or one number per way.
        n_query: query images of each class.
        seed: 0 to 2^64 - 1.
        balanced: whether every class has `n_query` queries. Otherwise the `n_way * n_query` queries of an episode are drawn from all images
            of its classes that are no supports, each as likely as any other, and a class may have many or none. Classes and supports are
            the same.
        names: of the classes by id, for refusals; without them a class is called by its id.

    Raises:
        EpisodeError: fewer classes than `n_way`, classes with fewer images than shots and queries, sizes under 1, a seed out of range.
    """

    def __init__(
        self,
        labels: Int64[np.ndarray, " n"],
        n_way: int,
        n_shot: int | Sequence[int],
        n_query: int,
        seed: int,
        *,
        balanced: bool = True,
        names: Sequence[str] | None = None,
    ) -> None:
        shots = [n_shot] * n_way if isinstance(n_shot, int) else list(n_shot)
        if n_way < 1 or n_query < 1 or not shots or min(shots) < 1:
            raise EpisodeError(f"an episode of {n_way} ways, {n_shot} shots and {n_query} queries: each is to be at least 1")
        if len(shots) != n_way:
            raise EpisodeError(f"n_shot lists {len(shots)} numbers for {n_way} ways: expected one per way")
        if not 0 <= seed < 2**64:
            raise EpisodeError(f"seed {seed} is out of range: expected 0 to 2^64 - 1")
        self.n_way, self.n_query, self.seed, self.balanced = n_way, n_query, seed, balanced
        self.n_shot = tuple(shots)
        self._labels = labels.copy()
        self._order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        self.classes, self._starts, self._sizes = np.unique(labels[self._order], return_index=True, return_counts=True)
        if len(self.classes) < n_way:
            raise EpisodeError(f"{len(self.classes)} classes cannot make a {n_way}-way episode; ask for fewer ways (--n-way)")
        smallest = int(self._sizes.argmin())
        self._check(names[self.classes[smallest]] if names else str(self.classes[smallest]), int(self._sizes[smallest]))

    def _check(self, smallest: str, held: int) -> None:
        """Refuse sizes that some choice of classes cannot give; `smallest` is the class with fewest images, which are `held`."""
        shots, queries = max(self.n_shot), self.n_query if self.balanced else 0
        if held < shots + queries:
            takes = f"{shots} shots and {queries} queries = {shots + queries}" if queries else f"{shots} shots"
            raise EpisodeError(f"class {smallest} has {held} images, an episode takes {takes}; ask for fewer (--n-shot, --n-query)")
        pool, shots, queries = int(np.sort(self._sizes)[: self.n_way].sum()), sum(self.n_shot), self.n_way * self.n_query
        if pool < shots + queries:
            raise EpisodeError(
                f"the {self.n_way} smallest classes have {pool} images, an episode takes {shots} shots and {queries} queries = "
                f"{shots + queries}; ask for fewer (--n-shot, --n-query)"
            )

    @property
    def rows(self) -> Int64[np.ndarray, " rows"]:
        """Every row that an episode may show, ascending."""
        return np.sort(self._order)

    def __getitem__(self, index: int) -> Episode:
        """Episode `index`, any number from 0 to 2^64 - 1."""
        return self.draw([index])[0]

    def draw(self, indices: Sequence[int]) -> list[Episode]:
        """The episodes of these numbers, several times faster than one by one."""
        for index in indices:
            if not 0 <= index < 2**64:
                raise EpisodeError(f"episode {index} is out of range: expected 0 to 2^64 - 1")
        most, queries = max(self.n_shot), self.n_way * self.n_query
        # Each set has its own stream of words, so that changing n_query moves no support.
        passed = self.n_way * most if self.balanced else sum(self.n_shot)
        class_words, support_words, query_words = random_words(self.seed, indices, (self.n_way, self.n_way * most, passed + queries))
        chosen = draw_places(class_words, np.full(len(indices), len(self.classes)))
        support = self._draw_from_each(chosen, support_words)[:, np.arange(most) < np.array(self.n_shot)[:, None]]
        # Queries are drawn like supports, from all images; those that are supports are passed over.
        drawn = self._draw_from_each(chosen, query_words) if self.balanced else self._draw_from_all(chosen, query_words)
        taken = (drawn[..., None] == support[:, None, None, :]).any(-1)
        free = np.argsort(taken, axis=-1, kind="stable")[..., : queries // drawn.shape[1]]
        query = np.take_along_axis(drawn, free, axis=-1).reshape(len(indices), queries)
        classes = self.classes[chosen]
        support_labels, query_labels = ((self._labels[rows][..., None] == classes[:, None, :]).argmax(-1) for rows in (support, query))
        return [Episode(*arrays) for arrays in zip(classes, support, support_labels, query, query_labels, strict=True)]

    def _draw_from_each(
        self, chosen: Int64[np.ndarray, "episodes way"], words: UInt64[np.ndarray, "episodes words"]
    ) -> Int64[np.ndarray, "episodes way images"]:
        """Rows of every chosen class. Words go round the classes, so that those of the first shot do not depend on how many follow."""
        places = draw_places(words.reshape(len(words), words.shape[1] // self.n_way, self.n_way).swapaxes(1, 2), self._sizes[chosen])
        return self._order[self._starts[chosen][..., None] + places]

    def _draw_from_all(
        self, chosen: Int64[np.ndarray, "episodes way"], words: UInt64[np.ndarray, "episodes images"]
    ) -> Int64[np.ndarray, "episodes 1 images"]:
        """Rows of the chosen classes, put one after another."""
        ends = self._sizes[chosen].cumsum(1)
        places = draw_places(words, ends[:, -1])
        way = (places[..., None] >= ends[:, None, :]).sum(-1)
        # The last of class i is at `ends[i] - 1` here and at `starts[i] + sizes[i] - 1` in the order.
        shift = self._starts[chosen] + self._sizes[chosen] - ends
        return self._order[places + np.take_along_axis(shift, way, axis=1)][:, None]
