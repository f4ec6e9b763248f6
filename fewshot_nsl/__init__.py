"""fewshot-nsl: few-shot meta-learning with neural similarity (Liu et al., NeurIPS 2019) on today's PyTorch.

What is promised stands in the `__init__` of each room, ground floor first: `similarity`, `backbones`, `data`, `episodes`, `inner_loop`,
`strategies`, `evaluate`, `training`. Importing this package imports none of them.
"""

__version__ = "0.1.0"
