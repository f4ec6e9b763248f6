"""The datasets that can be prepared, one line each: name -> the layouts in which it is found, the first one that fits being read."""

from collections.abc import Callable, Mapping, Sequence

from fewshot_nsl.data.card import Card
from fewshot_nsl.data.glyphs import draw_glyphs
from fewshot_nsl.data.layouts.cache_pickles import CACHE_PICKLES
from fewshot_nsl.data.layouts.cifar_archive import CIFAR_ARCHIVE
from fewshot_nsl.data.layouts.cifar_folders import CIFAR_FOLDERS
from fewshot_nsl.data.layouts.class_folders import CLASS_FOLDERS, SPLIT_FOLDERS
from fewshot_nsl.data.layouts.hdf5 import HDF5
from fewshot_nsl.data.layouts.image_lists import ILSVRC_LISTS, IMAGE_LISTS
from fewshot_nsl.data.layouts.layout import Layout
from fewshot_nsl.data.layouts.omniglot import OMNIGLOT
from fewshot_nsl.data.layouts.tiered_pickles import TIERED_PICKLES
from fewshot_nsl.data.source import Source

FOLDERS = (SPLIT_FOLDERS, CLASS_FOLDERS)
"""Of every dataset that is not named below."""

DATASETS: Mapping[str, Sequence[Layout]] = {
    "cifar-fs": (CIFAR_FOLDERS, CIFAR_ARCHIVE),
    "cub": FOLDERS,
    "fc100": (CIFAR_ARCHIVE,),
    "mini-imagenet": (IMAGE_LISTS, ILSVRC_LISTS, CACHE_PICKLES, HDF5, *FOLDERS),
    "omniglot": (OMNIGLOT,),
    "omniglot-rotated": (OMNIGLOT,),
    "tiered-imagenet": (TIERED_PICKLES, *FOLDERS),
}

EMBEDDED: Mapping[str, Callable[[Card], Source]] = {"glyphs": draw_glyphs}
"""Those that come with the package, from no path."""
