from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from fewshot_nsl.data import Card, Source, SourceClass
from fewshot_nsl.data.source import check_source
from fewshot_nsl.errors import DataError

SPLITS = {"train": ("ash", "elm"), "val": ("bat",), "test": ("ant", "bee")}


def _card(splits: Mapping[str, tuple[str, ...]] = SPLITS, images_per_class: int | None = None, images: int | None = None) -> Card:
    return Card(
        name="tiny",
        title="Tiny",
        image_size=16,
        channels=3,
        images_per_class=images_per_class,
        images=images,
        licence="none",
        citation="nobody",
        homepage="none",
        how_to_get="ask",
        augmentations=(),
        splits=splits,
    )


def _never() -> np.ndarray:
    raise AssertionError("a source is checked before it is read")


def _source(splits: Mapping[str, tuple[str, ...]] = SPLITS, n: int = 3, **others: int) -> Source:
    """Three images of each class, or as many as `others` says."""
    named = [(split, name) for split, names in splits.items() for name in names]
    return Source("heap", [SourceClass(split, name, tuple(map(str, range(others.get(name, n)))), _never) for split, name in named])


@pytest.mark.parametrize("counts", [{}, {"images_per_class": 3}, {"images": 15}])
def test_a_whole_source_passes_unread(counts: dict[str, Any]) -> None:
    check_source(_card(**counts), _source())
    assert _source().n_images == 15


def test_classes_may_differ_in_size_where_the_card_gives_none() -> None:
    check_source(_card(), _source(elm=1, bee=7))
    check_source(_card(images=17), _source(elm=1, bee=7))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"val": ()}, r"tiny: split 'val' has 0 classes in the heap layout, expected the card's 1; missing: bat; not in the card: none"),
        ({"test": ("bee", "cow", "ant")}, r"split 'test' has 3 classes .*the card's 2; missing: none; not in the card: cow"),
        ({"train": ("ash", "bat"), "val": ("elm",)}, r"split 'train' has 2 classes .*the card's 2; missing: elm; not in the card: bat"),
    ],
)
def test_other_classes_than_the_cards_are_named(found: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_source(_card(), _source(SPLITS | found))


def test_of_many_missing_classes_the_first_five_are_named() -> None:
    card = _card(SPLITS | {"train": tuple(f"c{i}" for i in range(9))})
    with pytest.raises(DataError, match=r"missing: c0, c1, c2, c3, c4 and 4 more; not in the card: ash, elm$"):
        check_source(card, _source())


@pytest.mark.parametrize(
    ("card", "source", "message"),
    [
        (
            _card(images_per_class=3),
            _source(elm=4, bat=0),
            r"each class has 3 images, but the heap layout has 0 in bat, 4 in elm; complete the",
        ),
        (_card(images_per_class=2), _source(), r"3 in ant, 3 in ash, 3 in bat, 3 in bee, 3 in elm; complete"),
        (_card(), _source(bat=0), r"each class has some images, but the heap layout has 0 in bat; complete"),
        (_card(images=15), _source(bat=0, elm=6), r"each class has some images, but the heap layout has 0 in bat; complete"),
        (_card(images=15), _source(bat=2), r"tiny has 15 images, but the heap layout has 14; complete the source, then prepare again"),
    ],
)
def test_other_numbers_of_images_are_named(card: Card, source: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_source(card, source)
