"""What has come of a file over HTTP so far, kept on disk so that a later attempt goes on from there."""

import http
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fewshot_nsl import __version__
from fewshot_nsl.errors import DataError

_CHUNK = 2**16

Progress = Callable[[int, int | None], None]
"""Called with (bytes done, bytes in all, or None where nobody says)."""


class BrokenOff(Exception):  # noqa: N818 - it says what happened
    """A connection could not be made or broke off; another attempt may do better."""


class Part:
    """What has come of a file so far, and the server's word for which version of the file that is."""

    def __init__(self, target: Path, url: str, size: int | None, *, checked: bool) -> None:
        """`checked`: whether a checksum will tell the halves of two files, should they be joined."""
        self.path = target.parent / f".{target.name}.part"
        self._version = target.parent / f".{target.name}.version"
        self._name, self._url, self._expected, self._checked = target.name, url, size, checked
        self.total = size
        """Bytes of the whole file, once they are known."""
        self.answered = False
        """Whether a server was there at all."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def forget(self) -> None:
        """Begin anew next time."""
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def fetch(self, progress: Progress | None, timeout: float) -> bool:
        """Fetch what is missing; whether there was something before.

        Raises:
            BrokenOff: another attempt may do better.
            DataError: none will.
        """
        request = urllib.request.Request(self._url, headers={"User-Agent": f"fewshot-nsl/{__version__}"})
        known = self._version.read_text() if self._version.is_file() else None
        if self.size and (known or self._checked):  # else nothing would tell an old half from a new one
            request.add_header("Range", f"bytes={self.size}-")
            if known:
                request.add_header("If-Range", known)
        with self._open(request, timeout) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            if resumed:
                self._check_same(response.headers, known)
            total = _total(response)
            self._check_offer(response.headers.get_content_type(), total)
            self.total = self._expected or total
            if not resumed:
                self.forget()
                if version := _version(response.headers):
                    self._version.write_text(version)
            self._write(response, progress)
        return resumed

    def _open(self, request: urllib.request.Request, timeout: float) -> http.client.HTTPResponse:
        try:
            response = urllib.request.build_opener(SafeRedirects()).open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            error.close()
            self.answered = True
            reason = " ".join(f"the server answers {error.code} {error.reason}".split())
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.forget()
            elif error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
                raise DataError(f"{self._url} is not to be had: {reason}; fetch the file elsewhere and give it with --from PATH") from error
            raise BrokenOff(reason) from error
        except urllib.error.URLError as error:
            raise BrokenOff(f"no network, or the server is away ({error.reason})") from error
        except (OSError, http.client.HTTPException) as error:
            raise BrokenOff(f"no network, or the server is away ({type(error).__name__}: {error})") from error
        self.answered = True
        return response

    def _check_same(self, headers: http.client.HTTPMessage, known: str | None) -> None:
        """Some servers send the rest of another file than was begun: not all heed If-Range."""
        now = _version(headers) if known else None
        if now not in (None, known) or not headers.get("Content-Range", "").startswith(f"bytes {self.size}-"):
            self.forget()
            raise BrokenOff("the server sent another part than it was asked for")

    def _check_offer(self, kind: str, total: int | None) -> None:
        if kind == "text/html" and not self._name.endswith((".html", ".htm")):
            raise DataError(f"{self._url} answers with a web page and not with {self._name}; fetch it by hand, in a browser")
        if None not in (self._expected, total) and total != self._expected:
            raise DataError(f"{self._url} is offered with {total} bytes, expected {self._expected}; it is another file: fetch it elsewhere")

    def _write(self, response: http.client.HTTPResponse, progress: Progress | None) -> None:
        with self.path.open("ab") as file:
            done = file.tell()
            for chunk in _chunks(response):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, self.total)
                if self.total is not None and done > self.total:
                    return  # the check of the size will say so
        if self.total is not None and done < self.total:
            raise BrokenOff(f"the connection broke off after {done} of {self.total} bytes")


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, but not from an encrypted page to one that is not."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """What to ask next; DataError where that would be less safe."""
        old, new = (url.partition(":")[0].lower() for url in (req.full_url, newurl))
        if new != "https" and (old == "https" or new != "http"):
            raise DataError(f"{req.full_url} leads to {newurl}, which is not as safe; fetch the file by hand if you trust that place")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _version(headers: http.client.HTTPMessage) -> str | None:
    """What tells this version of a file from others; a weak tag does not."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _total(response: http.client.HTTPResponse) -> int | None:
    """Bytes of the whole file, as the server says; a part may be shorter than what is missing."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        return int(match[1]) if match else None
    return response.length


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    # Apart from writing: a full disk is not the network's fault.
    try:
        left = response.length  # counted here: read1 of some Pythons goes on beyond it
        while left != 0 and (chunk := response.read1(_CHUNK if left is None else min(_CHUNK, left))):
            left = None if left is None else left - len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOff(f"the connection broke off ({type(error).__name__}: {error})") from error
