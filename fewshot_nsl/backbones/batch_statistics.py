"""BN that knows the batch at hand only: no running statistics, in training or at test (Finn et al. 2017)."""

import copy
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Network = TypeVar("Network", bound=nn.Module)


def with_batch_statistics(network: Network) -> Network:
    """A copy of `network` in which every BN normalises with the statistics of its input and keeps none; `network` stays as it is.

    An output then depends on all images given together, so a call must be given the images of one task alone. Running statistics are not
    among the copy's tensors; parameters keep their names.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return network
