import numpy as np
import pytest

from fewshot_nsl.data.statistics import ChannelStatistics


def test_mean_and_std_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), dtype=np.uint8)
    statistics = ChannelStatistics(3)
    for part in np.split(images, 4):
        statistics.add(part)
    assert statistics.mean == pytest.approx(images.mean(axis=(0, 1, 2)))
    assert statistics.std == pytest.approx(images.std(axis=(0, 1, 2)))


def test_order_changes_no_digit() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 1), dtype=np.uint8)
    forwards, backwards = ChannelStatistics(1), ChannelStatistics(1)
    forwards.add(images)
    for image in images[::-1]:
        backwards.add(image[None])
    assert (forwards.mean, forwards.std) == (backwards.mean, backwards.std)
