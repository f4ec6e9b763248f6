import numpy as np
import pytest
import torch

from fewshot_nsl.backbones import Normalise

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)
MEAN, STD = (10.5, 120.0, 200.25), (3.0, 64.0, 0.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_takes_the_mean_off_and_divides_by_the_deviation(dtype: torch.dtype) -> None:
    expected = (IMAGES.astype(np.float64) - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
    output = Normalise(MEAN, STD)(torch.from_numpy(IMAGES).to(dtype))
    assert output.dtype == torch.float32
    np.testing.assert_allclose(output.numpy(), expected, rtol=1e-6, atol=1e-5)


def test_gives_the_dtype_of_the_network_and_its_layout() -> None:
    output = Normalise(MEAN, STD).double()(torch.from_numpy(IMAGES))
    assert output.dtype == torch.float64
    assert output.is_contiguous(memory_format=torch.channels_last)


def test_statistics_of_the_data_make_it_standard() -> None:
    output = Normalise(IMAGES.mean((0, 2, 3)).tolist(), IMAGES.std((0, 2, 3)).tolist())(torch.from_numpy(IMAGES))
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(output.std((0, 2, 3), unbiased=False), torch.ones(3))


def test_the_statistics_travel_in_the_state_and_are_not_learned() -> None:
    module = Normalise(MEAN, STD)
    assert set(module.state_dict()) == {"mean", "std"}
    assert list(module.parameters()) == []
    other = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(torch.from_numpy(IMAGES)), module(torch.from_numpy(IMAGES)))
