"""Datasets: cards that say what they are, readers that find them on disk, and stores that hold them ready for episodes.

To add a dataset of class folders: a card in `data/cards/`, which `new_card` writes. One in another layout: also a file in `layouts/`,
and its line in `datasets.DATASETS`.
"""

from fewshot_nsl.data.card import SPLITS, Card, card_names, load_card
from fewshot_nsl.data.choose import choose_store
from fewshot_nsl.data.datasets import DATASETS
from fewshot_nsl.data.download import Download, fetch
from fewshot_nsl.data.downloads import download_dataset
from fewshot_nsl.data.images import decode_image, decode_images
from fewshot_nsl.data.new_card import new_card
from fewshot_nsl.data.prepare import prepare
from fewshot_nsl.data.record import StoreRecord, read_record
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.data.store import ImageStore, open_store, prepared_stores
from fewshot_nsl.data.verify import verify

__all__ = [
    "DATASETS",
    "SPLITS",
    "Card",
    "Download",
    "ImageStore",
    "Source",
    "SourceClass",
    "StoreRecord",
    "card_names",
    "choose_store",
    "decode_image",
    "decode_images",
    "download_dataset",
    "fetch",
    "load_card",
    "new_card",
    "open_store",
    "prepare",
    "prepared_stores",
    "read_record",
    "verify",
]
