"""Whether the episodes of a frozen set are what its description says, of images that the store has; all at once, without a loop."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int64

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes.frozen_table import EpisodeTable, FrozenDescription
from fewshot_nsl.errors import DataError


def damaged(name: str, what: str) -> DataError:
    """The refusal of a frozen set because of its content."""
    return DataError(f"{name}: {' '.join(what.split())}; fetch that file again, or draw a new one: fewshot-nsl episodes freeze")


def check_table(
    store: ImageStore, description: FrozenDescription, table: EpisodeTable, name: str
) -> tuple[Int64[np.ndarray, "episodes way"], Int64[np.ndarray, " rows"]]:
    """The class ids of each episode, and the store's row of each image.

    Args:
        store: the one that the set was drawn from.
        description: what the set says of itself.
        table: its content.
        name: of the set, for refusals.

    Raises:
        DataError: the first thing that is wrong, and in which episode.
    """
    episodes, way = description.episodes, description.n_way
    size = sum(description.shots) + way * description.n_query
    if len(description.shots) != way:
        raise damaged(name, f"n_shot lists {len(description.shots)} numbers, expected one for each of {way} ways")
    if len(table.episode) != episodes * size:
        raise damaged(name, f"it has {len(table.episode)} rows, expected {episodes} episodes of {size}")

    def check(wrong: Bool[np.ndarray, "..."], what: Callable[[int], str]) -> None:
        """Refuse if anything is wrong; `what` words the first place, of as many places for each episode."""
        if wrong.any():
            at = int(wrong.argmax())
            raise damaged(name, f"episode {at * episodes // wrong.size}: {what(at)}")

    label, index, number = table.label, table.index, table.episode
    check(
        number != np.repeat(np.arange(episodes), size),
        lambda at: f"row {at} is of episode {number[at]}, expected episodes from 0 in order, {size} rows each",
    )
    check((label < 0) | (label >= way), lambda at: f"label {label[at]}, expected 0 to {way - 1}")
    place = number * way + label
    shots = np.tile(description.shots, episodes)
    support, query = (np.bincount(place[part], minlength=len(shots)) for part in (~table.query, table.query))
    check(support != shots, lambda at: f"label {at % way} has {support[at]} support images, expected {shots[at]}")
    if description.balanced:
        wanted = description.n_query
        check(query != wanted, lambda at: f"label {at % way} has {query[at]} query images, expected {wanted}")

    rows = store.splits.get(description.split, range(0))
    ids = {store.classes[each]: each for each in np.unique(store.labels[rows.start : rows.stop]).tolist()}
    classes = np.array([ids.get(each, -1) for each in table.names], dtype=np.int64)[table.class_]
    check(classes < 0, lambda at: f"class {table.names[table.class_[at]]}, which {store.name} does not have in split '{description.split}'")
    of_place = np.empty(len(shots), dtype=np.int64)
    of_place[place] = classes
    check(
        of_place[place] != classes,
        lambda at: f"label {label[at]} is of {store.classes[classes[at]]} and {store.classes[of_place[place[at]]]}, expected one class",
    )
    of_episode = of_place.reshape(episodes, way)
    check(_repeats(of_episode), lambda _: "two labels are of one class, expected distinct classes")

    held = np.bincount(store.labels)[classes]
    check((index < 0) | (index >= held), lambda at: f"index {index[at]} of {store.classes[classes[at]]}, expected 0 to {held[at] - 1}")
    shown = np.searchsorted(store.labels, np.arange(len(store.classes)))[classes] + index
    check(_repeats(shown.reshape(episodes, size)), lambda _: "an image occurs twice, expected distinct images")
    return of_episode, shown


def _repeats(numbers: Int64[np.ndarray, "episodes k"]) -> Bool[np.ndarray, " episodes"]:
    """Which lines hold a number more than once."""
    return (np.diff(np.sort(numbers, axis=1), axis=1) == 0).any(axis=1)
