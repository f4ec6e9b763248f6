"""What learn2learn and torchmeta miss on today's stack, supplied before they are imported; no installed file is changed.

`prepare_imports()` first, then `import learn2learn`, `import torchmeta`, in the environment that `peers.py` builds.
"""

import importlib.util
from pathlib import Path

import torch

_KEPT: list[torch.library.Library] = []
"""An operator lives as long as the library that defines it."""


def prepare_imports() -> None:
    """Make both libraries importable, and torchmeta's loader run."""
    _define_operators_that_did_not_load()
    _restore_names_of_torchvision()
    _let_torchmeta_subset()


def _define_operators_that_did_not_load() -> None:
    """Torchvision built for CUDA, beside a torch for the CPU, cannot load its operators, and stops at the first it then describes."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        raise SystemExit("torchvision is not installed here; run this with the Python that evaluate/benchmarks/peers.py prints")
    try:
        torch.ops.load_library(str(Path(found.origin).parent / "_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):  # declared only: none of what is used here suppresses boxes
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)


def _restore_names_of_torchvision() -> None:
    """Two private functions that torchvision no longer has; torchmeta imports them, to download from Google Drive."""
    from torchvision.datasets import utils

    for name in ("_get_confirm_token", "_save_response_content"):
        if not hasattr(utils, name):
            setattr(utils, name, _no_download)


def _no_download(*_: object) -> None:
    raise NotImplementedError("downloads from Google Drive are no part of this environment")


def _let_torchmeta_subset() -> None:
    """Today's torch refuses a kind of `Subset` that has a `__getitem__` of its own and no `__getitems__`, as torchmeta's."""
    from torchmeta.utils.data.task import SubsetTask

    SubsetTask.__getitems__ = lambda self, indices: [self[i] for i in indices]
