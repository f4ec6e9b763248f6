"""CIFAR-FS (Bertinetto et al., ICLR 2019, https://arxiv.org/abs/1805.08136), from either layout in which its images are found.

The split is the card's; both layouts hold the same pixels and give the same store.
"""

from pathlib import Path

from fewshot_nsl.data.card import Card
from fewshot_nsl.data.cifar_archive import find_cifar_archive, read_cifar_archive
from fewshot_nsl.data.cifar_folders import find_cifar_folders, read_cifar_folders
from fewshot_nsl.data.source import Source
from fewshot_nsl.errors import DataError


def read_cifar_fs(card: Card, source: Path | None) -> Source:
    """CIFAR-FS from `source`: the folder `cifar100`, the folder or archive `cifar-100-python`, or the folder around one of them.

    Raises:
        DataError: `source` is not given, is in no layout that is known, or is incomplete.
    """
    if source is None:
        raise DataError(f"{card.name} is not embedded: give its images with --from PATH; to get them: {card.how_to_get}")
    if (folders := find_cifar_folders(source)) is not None:
        return read_cifar_folders(card, folders)
    if (archive := find_cifar_archive(source)) is not None:
        return read_cifar_archive(card, archive)
    raise DataError(
        f"{source} holds neither cifar100/ with data/ and splits/bertinetto/, nor cifar-100-python/ with train, test and meta; "
        f"to get {card.name}: {card.how_to_get}"
    )
