from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fewshot_nsl.data import ImageStore
from fewshot_nsl.episodes import Episode, EpisodeSampler, picture_episode


def _episode(store: ImageStore, n_way: int = 3, n_shot: int | list[int] = 2, n_query: int = 4) -> Episode:
    return EpisodeSampler(store.split_labels("test"), n_way, n_shot, n_query, seed=0)[0]


def _enlarged(store: ImageStore, row: int, times: int) -> np.ndarray:
    image = np.broadcast_to(store.images[row], (*store.images.shape[1:3], 3))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def _found(picture: Image.Image, image: np.ndarray) -> tuple[int, int]:
    """Left and top of `image`, where it is in `picture` once."""
    pixels, side = np.asarray(picture), len(image)
    corners = np.argwhere((pixels == image[0, 0]).all(-1))
    places = [(int(x), int(y)) for y, x in corners if np.array_equal(pixels[y : y + side, x : x + side], image)]
    assert len(places) == 1
    return places[0]


def _places(store: ImageStore, episode: Episode, times: int, picture: Image.Image) -> Iterator[tuple[str, int, int, int]]:
    """Set, label, left and top of every image."""
    for part, rows, labels in (
        ("support", episode.support_rows, episode.support_labels),
        ("query", episode.query_rows, episode.query_labels),
    ):
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            yield part, label, *_found(picture, _enlarged(store, row, times))


def test_every_image_is_there_enlarged_to_squares_class_below_class_queries_beside_supports(tiny_store: ImageStore) -> None:
    episode = _episode(tiny_store)
    picture = picture_episode(tiny_store, episode, "an episode")
    places = list(_places(tiny_store, episode, 4, picture))  # 16 pixels become 64
    tops = [{top for _, label, _, top in places if label == wanted} for wanted in range(3)]
    assert [len(each) for each in tops] == [1, 1, 1]
    assert sorted(map(min, tops)) == [min(each) for each in tops]
    last_support = max(left for part, _, left, _ in places if part == "support")
    assert last_support + 64 < min(left for part, _, left, _ in places if part == "query")
    assert len({(left, top) for *_, left, top in places}) == 18


def test_many_images_of_a_class_take_several_lines(tiny_store: ImageStore) -> None:
    episode = _episode(tiny_store, 2, [1, 2], 17)
    picture = picture_episode(tiny_store, episode, "")
    places = list(_places(tiny_store, episode, 4, picture))
    queries = [{top for part, label, _, top in places if (part, label) == ("query", wanted)} for wanted in (0, 1)]
    assert [len(each) for each in queries] == [2, 2]
    assert max(queries[0]) + 64 < min(queries[1])


def test_grey_images_and_large_images_are_shown_as_they_are(tiny_store: ImageStore) -> None:
    grey = replace(tiny_store, images=tiny_store.images[..., :1])
    assert len(list(_places(grey, _episode(grey), 4, picture_episode(grey, _episode(grey), "")))) == 18
    large = replace(tiny_store, images=tiny_store.images.repeat(5, axis=1).repeat(5, axis=2))
    assert len(list(_places(large, _episode(large), 1, picture_episode(large, _episode(large), "")))) == 18


def test_unbalanced_queries_may_leave_a_class_without(tiny_store: ImageStore) -> None:
    whole = _episode(tiny_store)
    kept = whole.query_labels != 1
    episode = replace(whole, query_rows=whole.query_rows[kept], query_labels=whole.query_labels[kept])
    places = list(_places(tiny_store, episode, 4, picture_episode(tiny_store, episode, "")))
    assert len(places) == 14


def _ink(picture: Image.Image, top: int, bottom: int) -> int:
    """Pixels that are not white."""
    return int((np.asarray(picture)[top:bottom] != 255).any(-1).sum())


def test_class_names_and_title_are_written(tiny_store: ImageStore) -> None:
    episode = _episode(tiny_store)
    picture = picture_episode(tiny_store, episode, "a title")
    unnamed = replace(tiny_store, classes=("",) * len(tiny_store.classes))
    bare = picture_episode(unnamed, episode, "")
    assert picture.size == bare.size
    first = min(top for *_, top in _places(tiny_store, episode, 4, picture))
    assert _ink(picture, 0, first) > _ink(bare, 0, first) + 50


@pytest.mark.parametrize("where", ["title", "class"])
def test_a_long_text_has_room(tiny_store: ImageStore, where: str) -> None:
    long, episode = "W" * 90, _episode(tiny_store, 3, 1, 1)
    store = replace(tiny_store, classes=(long,) * len(tiny_store.classes)) if where == "class" else tiny_store
    picture = picture_episode(store, episode, long if where == "title" else "")
    pixels = np.asarray(picture)
    assert picture.width > 90 * 10
    assert (pixels[:, -10:] == 255).all()
    assert (pixels[:, -60:] != 255).any()
