"""Random words and the shuffles made of them, for many episodes at once; the same on every machine and with every version of numpy."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt64
from numpy.random import Philox


def random_words(seed: int, indices: Sequence[int], counts: Sequence[int]) -> list[UInt64[np.ndarray, "episodes _"]]:
    """Raw words of Philox4x64-10 (Salmon et al. 2011), for each stream an array, whose rows belong to seed, index and stream alone.

    Args:
        seed: the key, 0 to 2^64 - 1.
        indices: 0 to 2^64 - 1; the counter's second word. The first is Philox's own.
        counts: words of a row, for the streams 0, 1, ...; the stream is the counter's third word.
    """
    # As unsigned numbers of 64 bits: numpy turns a list with larger ones into floats.
    generator = Philox(key=np.array([seed, 0], dtype=np.uint64))
    state = generator.state
    streams = [np.empty((len(indices), count), dtype=np.uint64) for count in counts]
    for stream, words in enumerate(streams):
        for row, index in zip(words, indices, strict=True):
            state["state"]["counter"] = np.array([0, index, stream, 0], dtype=np.uint64)
            generator.state = state
            row[:] = generator.random_raw(len(row))
    return streams


def draw_places(words: UInt64[np.ndarray, "*draws count"], sizes: Int64[np.ndarray, " *draws"]) -> Int64[np.ndarray, "*draws count"]:
    """As many of the places 0 ... size - 1 as there are words, in random order, none twice: the first steps of a Fisher-Yates shuffle.

    Step i swaps place i with place i + word modulo (size - i); the modulo has a bias under size * 2^-64.

    Args:
        words: one for each place drawn.
        sizes: places to draw from, at least `count`.
    """
    count = words.shape[-1]
    steps = np.arange(count)
    swapped = steps + (words % (sizes[..., None] - steps).astype(np.uint64)).astype(np.int64)
    swapped = swapped.reshape(-1, count)
    # Only these places are ever touched: the first `count`, held in as many slots, and those further on, each held in a slot behind
    # them by the first step that swaps it.
    first = (swapped[:, :, None] == swapped[:, None, :]).argmax(-1)
    slots = np.where(swapped < count, swapped, count + first)
    held = np.concatenate([np.broadcast_to(steps, swapped.shape), swapped], axis=1)
    # By step, so that each of them works on memory that lies together.
    held, slots = held.T.copy(), slots.T * len(held) + np.arange(len(held))
    flat = held.reshape(-1)
    for step, slot in enumerate(slots):
        drawn = flat[slot]
        flat[slot] = held[step]
        held[step] = drawn
    return held[:count].T.reshape(words.shape)
