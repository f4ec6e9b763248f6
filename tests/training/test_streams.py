from itertools import product

import torch

from fewshot_nsl.training.streams import stream


def test_is_a_function_of_seed_purpose_and_number() -> None:
    for key in product((0, 1), ("order", "augment", "base"), (0, 1)):
        first, second = (torch.rand(5, generator=stream(*key)) for _ in range(2))
        assert torch.equal(first, second)


def test_no_two_streams_are_alike() -> None:
    keys = list(product((0, 1, 2), ("order", "augment", "base"), range(20)))
    drawn = {tuple(torch.rand(3, generator=stream(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(3, generator=stream(0, "order", 0))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_of_the_streams_never_change() -> None:
    assert [stream(seed, "order", 3).initial_seed() for seed in (0, 2**63 - 1)] == [5617704510196221275, 12885559668309303009]
    assert stream(0, "augment", 3).initial_seed() == 16676476094709663433
    assert stream(0, "base", 3).initial_seed() == 4059674107071162136
