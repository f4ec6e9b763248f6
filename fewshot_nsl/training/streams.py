"""Random choices of training as functions of seed, purpose and number, so that nothing random needs saving."""

import torch
from numpy.random import Philox

_PURPOSES = {"order": 0, "augment": 1, "base": 2}


def stream(seed: int, purpose: str, number: int) -> torch.Generator:
    """A generator on the CPU that belongs to this seed, purpose ("order", "augment" or "base") and number alone."""
    word = int(Philox(key=[seed, 1], counter=[0, number, _PURPOSES[purpose], 0]).random_raw())
    return torch.Generator().manual_seed(word)
