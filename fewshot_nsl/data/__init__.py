"""Datasets: cards that say what they are, readers that find them on disk, and stores that hold them ready for episodes.

To add a dataset: a card in `data/cards/`, a reader file in this folder, and its line in `datasets.DATASETS`.
"""

from fewshot_nsl.data.card import SPLITS, Card, card_names, load_card
from fewshot_nsl.data.choose import choose_store
from fewshot_nsl.data.datasets import DATASETS, Reader
from fewshot_nsl.data.images import decode_image, decode_images
from fewshot_nsl.data.prepare import prepare
from fewshot_nsl.data.record import StoreRecord, read_record
from fewshot_nsl.data.source import Source, SourceClass
from fewshot_nsl.data.store import ImageStore, open_store, prepared_stores
from fewshot_nsl.data.verify import verify

__all__ = [
    "DATASETS",
    "SPLITS",
    "Card",
    "ImageStore",
    "Reader",
    "Source",
    "SourceClass",
    "StoreRecord",
    "card_names",
    "choose_store",
    "decode_image",
    "decode_images",
    "load_card",
    "open_store",
    "prepare",
    "prepared_stores",
    "read_record",
    "verify",
]
