"""Which episodes a command works on: those of a frozen set, or those that its options say how to draw."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fewshot_nsl.errors import ConfigurationError

if TYPE_CHECKING:  # slow to import, and a command's help does not need them
    from fewshot_nsl.data import ImageStore
    from fewshot_nsl.episodes import EpisodeSampler, FrozenEpisodes
    from fewshot_nsl.workspace import Workspace

SPLIT, WAYS, SHOTS, QUERIES, SEED = "test", 5, 5, 15, 0
"""What is drawn where nothing else is asked for."""

Frozen = Annotated[str | None, typer.Option("--frozen", metavar="FILE", help="Take a frozen set: a file, or the name of one in episodes/.")]

# None is "not asked for": a frozen set has its own sizes, and what is asked for must not be something else.
Split = Annotated[str | None, typer.Option("--split", show_default=SPLIT, help="train, val or test.")]
Ways = Annotated[int | None, typer.Option("--n-way", min=2, show_default=str(WAYS), help="Classes of an episode.")]
Shots = Annotated[int | None, typer.Option("--n-shot", min=1, show_default=str(SHOTS), help="Support images of a class.")]
Queries = Annotated[int | None, typer.Option("--n-query", min=1, show_default=str(QUERIES), help="Query images of a class.")]


def find_set(place: "Workspace", frozen: str | None, dataset: str | None) -> tuple[Path | None, str | None]:
    """The file of the frozen set if one is named, and the dataset to work on: where none is named, the set's own."""
    from fewshot_nsl.episodes import find_frozen, read_description

    if frozen is None:
        return None, dataset
    path = find_frozen(place, frozen)
    return path, dataset or read_description(path).dataset


def open_episodes(
    store: "ImageStore",
    path: Path | None,
    *,
    split: str | None,
    n_way: int | None,
    n_shot: int | None,
    n_query: int | None,
    seed: int | None,
) -> tuple["EpisodeSampler | FrozenEpisodes", str]:
    """The episodes frozen in `path`, or where there is none a sampler of the sizes asked for; and their split.

    Raises:
        ConfigurationError: something is asked for that the frozen set does not have.
        DataError, EpisodeError: as `read_frozen` and `EpisodeSampler`.
    """
    from fewshot_nsl.episodes import EpisodeSampler, read_frozen

    if path is None:
        labels = store.split_labels(split or SPLIT)
        sampler = EpisodeSampler(labels, n_way or WAYS, n_shot or SHOTS, n_query or QUERIES, seed or SEED, names=store.classes)
        return sampler, split or SPLIT
    frozen = read_frozen(path, store)
    has = frozen.description
    asked = {"split": (split, has.split), "n_way": (n_way, has.n_way), "n_shot": (n_shot, has.n_shot), "n_query": (n_query, has.n_query)}
    for name, (wanted, held) in (asked | {"seed": (seed, has.seed)}).items():
        if wanted not in (None, held):
            raise ConfigurationError(f"{name} {wanted} is asked for, but the episodes frozen in {path} have {name} {held}; leave it out")
    return frozen, frozen.split
