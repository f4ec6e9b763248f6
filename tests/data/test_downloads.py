import hashlib
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fewshot_nsl.data import download_dataset, prepare
from fewshot_nsl.errors import DataError
from fewshot_nsl.workspace import Workspace

Publish = Callable[[str, Path, str], None]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def publish(tmp_path: Path, workspace: Workspace) -> Iterator[Publish]:
    """Serve an archive of a folder on this machine, and write it into the card of the dataset."""
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

        def archive(dataset: str, folder: Path, options: str) -> None:
            packed = tmp_path / "served" / f"{folder.name}.tar.gz"
            with tarfile.open(packed, "w:gz") as tar:
                tar.add(folder, folder.name)
            checksum = hashlib.md5(packed.read_bytes()).hexdigest()
            table = (
                f'[[downloads]]\nurl = "http://127.0.0.1:{server.server_port}/{packed.name}"\nfile = "{packed.name}"\n'
                f'checksum = "md5:{checksum}"\nsize = {packed.stat().st_size}\n{options}\n[splits]'
            )
            card = workspace.data / "cards" / f"{dataset}.toml"
            card.write_text(card.read_text().replace("[splits]", table))

        yield archive
        server.shutdown()


def test_an_archive_is_fetched_and_read_as_it_is(workspace: Workspace, cifar_archive: Path, publish: Publish) -> None:
    publish("cifar-fs", cifar_archive / "cifar-100-python", "")
    seen: list[tuple[str, int, int | None]] = []
    folder = download_dataset(workspace, "cifar-fs", lambda *state: seen.append(state))
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["cifar-100-python.tar.gz"]
    name, done, total = seen[-1]
    assert (name, done) == ("cifar-100-python.tar.gz", total)
    assert prepare(workspace, "cifar-fs", folder).fingerprint == prepare(workspace, "cifar-fs", cifar_archive, force=True).fingerprint


def test_an_archive_is_unpacked_where_the_card_says_so(workspace: Workspace, cifar_folders: Path, publish: Publish) -> None:
    publish("mini-imagenet", cifar_folders / "cifar100" / "data", "unpack = true")
    folder = download_dataset(workspace, "mini-imagenet")
    assert len(prepare(workspace, "mini-imagenet", folder / "data" / "data").labels) == 24


def test_a_dataset_without_downloads_is_refused(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="cifar-fs cannot be downloaded by a command; to get it: ask a friend"):
        download_dataset(workspace, "cifar-fs")
