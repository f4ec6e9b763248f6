from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fewshot_nsl.bench import MetaWork, meta_step_operations, our_learner, our_step
from fewshot_nsl.bench.operations import layer_operations
from fewshot_nsl.bench.work import made_up_batch
from fewshot_nsl.inner_loop import higher

WORK = MetaWork(image_size=16, tasks=2, steps=2, n_way=3, n_shot=2, n_query=1, width=4)


def test_a_layer_has_a_product_for_every_number_that_a_filter_sees() -> None:
    # 6 images; 16x16 of 3 channels, then 8x8, 4x4 and 2x2 of 4; 9 taps and 4 filters, a multiplication and an addition each
    expected = [2 * 6 * side * side * channels * 9 * 4 for side, channels in ((16, 3), (8, 4), (4, 4), (2, 4))]
    assert layer_operations(WORK, 6) == expected


@pytest.mark.parametrize("strategy", ["maml", "meta-static"])
@pytest.mark.parametrize("work", [WORK, replace(WORK, tasks=1, steps=3, image_size=32)], ids=str)
def test_the_count_is_that_of_torch_but_for_gradients_that_nobody_asks_for(strategy: str, work: MetaWork) -> None:
    step = our_step(our_learner(strategy, work, higher()), made_up_batch(work, torch.device("cpu")))
    with FlopCounterMode(display=False) as counter:
        step()
    counted = sum(count for operator, count in counter.get_flop_counts()["Global"].items() if "convolution" in str(operator))
    # Going back through the gradient of the first layer's filters, torch makes the images' gradient too.
    unused = work.tasks * work.steps * layer_operations(work, work.n_support)[0]
    assert meta_step_operations(work) == counted - unused
