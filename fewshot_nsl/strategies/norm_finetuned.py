"""Finetuning of BN's scale and shift alone: few weights on a frozen network, as with static similarity, whose control it is."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewshot_nsl.errors import ConfigurationError
from fewshot_nsl.strategies.finetuned import Finetuned


class NormFinetuned(Finetuned):
    """As `Finetuned`; of the network, the scale and shift of every BN move, and the filters stay."""

    def moving(self) -> dict[str, nn.Parameter]:
        """Scales and shifts.

        Raises:
            ConfigurationError: there are none.
        """
        norms = [(name, layer) for name, layer in self.network.named_modules() if isinstance(layer, _BatchNorm)]
        affine = {f"{name}.{key}": value for name, layer in norms for key, value in layer.named_parameters(recurse=False)}
        if not affine:
            raise ConfigurationError(f"{type(self.network).__name__} has no BN of which scale and shift could move; use strategy finetuned")
        return affine
