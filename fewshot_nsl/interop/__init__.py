"""Bridges to learn2learn and torchmeta: a store and its episodes handed to them, and their tasks taken.

Neither library is imported: these are their layouts, so the bridges work wherever the libraries do, and are tested where they do not.
"""

from fewshot_nsl.interop.learn2learn import from_learn2learn, labels_to_indices, to_learn2learn
from fewshot_nsl.interop.torchmeta import TorchmetaClasses, TorchmetaTasks, from_torchmeta, to_torchmeta

__all__ = [
    "TorchmetaClasses",
    "TorchmetaTasks",
    "from_learn2learn",
    "from_torchmeta",
    "labels_to_indices",
    "to_learn2learn",
    "to_torchmeta",
]
