"""fewshot-nsl: few-shot meta-learning with neural similarity (Liu et al., NeurIPS 2019) on today's PyTorch."""

__version__ = "0.1.0"
