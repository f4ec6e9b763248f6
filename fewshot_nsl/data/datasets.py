"""The datasets that can be prepared, one line each: name -> reader of the layouts in which it is found."""

from collections.abc import Callable, Mapping
from pathlib import Path

from fewshot_nsl.data.card import Card
from fewshot_nsl.data.cifar_fs import read_cifar_fs
from fewshot_nsl.data.glyphs import read_glyphs
from fewshot_nsl.data.mini_imagenet import read_mini_imagenet
from fewshot_nsl.data.source import Source

Reader = Callable[[Card, Path | None], Source]
"""From a card and where the user says that the images are (None: nowhere) to a source; decodes nothing yet."""

DATASETS: Mapping[str, Reader] = {
    "cifar-fs": read_cifar_fs,
    "glyphs": read_glyphs,
    "mini-imagenet": read_mini_imagenet,
}
