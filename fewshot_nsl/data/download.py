"""One file fetched over HTTP: whole, checked, and going on where an earlier attempt was interrupted."""

import hashlib
import http
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from fewshot_nsl.data.aside import only_writer
from fewshot_nsl.errors import DataError

_CHUNK = 2**20


class Download(BaseModel):
    """One file of a card's `[[downloads]]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://[^\s]+$")
    file: str = Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$", description="name to save it as")
    checksum: str | None = Field(default=None, pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")
    size: int | None = Field(default=None, gt=0, description="bytes")
    unpack: bool = Field(default=False, description="whether images are read from the unpacked archive")


class _BrokenOff(Exception):  # noqa: N818 - it says what happened
    """A connection could not be made or broke off; another attempt may do better."""


def fetch(
    download: Download,
    folder: Path,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
) -> Path:
    """The file `folder/<download.file>`, fetched unless it is there already. One process at a time fetches it; others wait.

    What has come lies in `folder/.<file>.part` until it is whole and right, so that a later call, also after a kill, goes on from there.

    Args:
        download: what.
        folder: where to; made if it is not there.
        progress: called with bytes done and in all (None where the server does not say).
        attempts: to make, when connections break off, before giving up; counted anew whenever more has come than ever before.
        pause: seconds before the second attempt; each later pause is longer by as much.
        timeout: seconds without a byte after which a connection counts as broken off.

    Raises:
        DataError: no connection, no such file there, or not the size or checksum that is expected.
    """
    target = folder / download.file
    with only_writer(target):
        if target.is_file() and _wrong(download, target) is None:
            return target
        part = _Part(folder, download)
        failures, furthest = 0, part.size
        while True:
            try:
                resumed = part.fetch(progress, timeout)
            except _BrokenOff as error:
                failures = failures + 1 if part.size <= furthest else 1
                furthest = max(furthest, part.size)
                if failures == attempts:
                    kept = f"; the {part.size} bytes that came are kept: run the same command again to go on from there" if part.size else ""
                    raise DataError(
                        f"{download.url} could not be fetched: {error}{kept or '; try again later'}, or fetch it by hand and give it with "
                        "--from PATH"
                    ) from error
                time.sleep(pause * failures)
                continue
            wrong = _wrong(download, part.path)
            if wrong is None:
                part.path.replace(target)
                part.forget()
                return target
            part.forget()
            if not resumed:  # one made of several pieces gets another chance, from the start
                raise DataError(f"{download.url}: {wrong}; what came was thrown away: try again later, or fetch it by hand")


class _Part:
    """What has come of a file so far, and the server's word for which version of the file that is."""

    def __init__(self, folder: Path, download: Download) -> None:
        self._download = download
        self.path = folder / f".{download.file}.part"
        self._version = folder / f".{download.file}.version"

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def forget(self) -> None:
        """Begin anew next time."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def fetch(self, progress: Callable[[int, int | None], None] | None, timeout: float) -> bool:
        """Fetch what is missing; whether there was something before."""
        request = urllib.request.Request(self._download.url)
        known = self._version.read_text() if self._version.is_file() else None
        if self.size and (known or self._download.checksum):  # else nothing would tell an old half from a new one
            request.add_header("Range", f"bytes={self.size}-")
            if known:
                request.add_header("If-Range", known)
        response = self._open(request, timeout)
        with response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {self.size}-"):
                self.forget()
                raise _BrokenOff("the server sent another part than it was asked for")
            length = response.headers.get("Content-Length")
            total = int(length) + (self.size if resumed else 0) if length and length.isdecimal() else None
            self._check_offer(response.headers.get_content_type(), total)
            version = response.headers.get("ETag") or response.headers.get("Last-Modified")
            if not resumed:
                self.forget()
                if version and not version.startswith("W/"):  # a weak one does not tell two files apart
                    self._version.write_text(version)
            self._write(response, total, progress)
        return resumed

    def _open(self, request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
        try:
            return urllib.request.build_opener(_SafeRedirects()).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.forget()
            elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                raise DataError(
                    f"{self._download.url} is not to be had: the server answers {error.code} {error.reason}; fetch the file elsewhere and "
                    "give it with --from PATH"
                ) from error
            raise _BrokenOff(f"the server answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise _BrokenOff(f"no network, or the server is away ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(f"no network, or the server is away ({type(error).__name__}: {error})") from error

    def _check_offer(self, kind: str, total: int | None) -> None:
        expected = self._download.size
        if kind == "text/html" and not self._download.file.endswith((".html", ".htm")):
            raise DataError(
                f"{self._download.url} answers with a web page and not with {self._download.file}; fetch it by hand, in a browser"
            )
        if None not in (expected, total) and total != expected:
            raise DataError(
                f"{self._download.url} is offered with {total} bytes, expected {expected}; it is another file: fetch it elsewhere"
            )

    def _write(self, response: http.client.HTTPResponse, total: int | None, progress: Callable[[int, int | None], None] | None) -> None:
        with self.path.open("ab") as file:
            done = file.tell()
            while True:
                try:
                    chunk = response.read1(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _BrokenOff(f"the connection broke off ({type(error).__name__}: {error})") from error
                if not chunk:
                    break
                file.write(chunk)  # outside of `try`: a full disk is not the network's fault
                done += len(chunk)
                if progress:
                    progress(done, total)
        if total is not None and done < total:
            raise _BrokenOff(f"the connection broke off after {done} of {total} bytes")


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, but not from an encrypted page to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https:") and (req.full_url.startswith("https:") or not newurl.startswith("http:")):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not as safe; fetch the file by hand if you trust that place")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _wrong(download: Download, path: Path) -> str | None:
    """What is not as expected, if anything."""
    size = path.stat().st_size
    if download.size not in (None, size):
        return f"{size} bytes came, expected {download.size}"
    if download.checksum is not None:
        kind, _, expected = download.checksum.partition(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
        if found != expected:
            return f"the file that came has {kind} {found}, expected {expected}"
    return None
