"""Against a real HTTP server on this machine, which does everything wrong that servers do."""

import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydantic import ValidationError

import fewshot_nsl
from fewshot_nsl.data.download import Download, fetch
from fewshot_nsl.data.part import SafeRedirects
from fewshot_nsl.errors import DataError

ROOT = Path(fewshot_nsl.__file__).parents[1]
CONTENT = random.Random(0).randbytes(300_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `content`, with the faults that a test sets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.tag = CONTENT, '"one"'
        self.ranges, self.claim, self.kind = True, 0, "application/octet-stream"
        self.obeys, self.most = True, len(CONTENT)
        """Whether If-Range is heeded; bytes of a part at most."""
        self.cuts: list[int] = []
        """Bytes after which each of the next answers breaks off."""
        self.status: list[int] = []
        """Of the next answers, in place of the content."""
        self.location = ""
        self.asked: list[str | None] = []
        """The Range of every request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.location:
            self._begin(302, {"Location": server.location})
            server.location = ""
        elif server.status:
            self._begin(server.status.pop(0), {})
        else:
            same = not server.obeys or self.headers.get("If-Range") in (None, server.tag)
            start = int(wanted[len("bytes=") : -1]) if wanted and server.ranges and same else 0
            whole = len(server.content)
            end = min(whole, start + server.most) if start else whole
            headers = {"Content-Length": str(end - start + server.claim), "Content-Type": server.kind, "ETag": server.tag}
            self._begin(
                206 if start else 200, headers | ({"Content-Range": f"bytes {start}-{end - 1}/{whole + server.claim}"} if start else {})
            )
            cut = server.cuts.pop(0) if server.cuts else end
            with suppress(ConnectionError):  # the other side may have seen enough
                self.wfile.write(server.content[start : min(end, start + cut)])

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


def _get(server: Server, folder: Path, *, checksum: str | None = CHECKSUM, size: int | None = None, attempts: int = 3) -> bytes:
    download = Download(url=server.url, file="a.zip", checksum=checksum, size=size)
    path = fetch(download, folder, attempts=attempts, pause=0.0, timeout=5.0)
    assert [each.name for each in folder.iterdir() if each.name not in ("a.zip", ".a.zip.lock")] == []
    return path.read_bytes()


def test_a_file_is_fetched_once_and_then_there(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download = Download(url=server.url, file="a.zip", checksum=CHECKSUM, size=len(CONTENT))
    for _ in range(2):
        assert fetch(download, tmp_path / "new", lambda done, total: seen.append((done, total))).read_bytes() == CONTENT
    assert server.asked == [None]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


@pytest.mark.parametrize("checksum", [CHECKSUM, f"md5:{hashlib.md5(CONTENT).hexdigest()}", None])
@pytest.mark.parametrize("tag", ['"one"', ""])
def test_broken_off_it_goes_on_where_it_stopped(server: Server, tmp_path: Path, checksum: str | None, tag: str) -> None:
    server.cuts, server.tag = [100_000, 50_000], tag
    assert _get(server, tmp_path, checksum=checksum) == CONTENT
    # Without a checksum and without the server's word that the file is the same, two halves may be of two files.
    assert server.asked == ([None, "bytes=100000-", "bytes=150000-"] if checksum or tag else [None] * 3)


def test_broken_off_anywhere_it_is_right_in_the_end(server: Server, tmp_path: Path) -> None:
    rng = random.Random(1)
    for trial in range(20):
        server.cuts = [rng.randrange(len(CONTENT) // 2) for _ in range(rng.randrange(8))]
        server.ranges = rng.random() < 0.7
        assert _get(server, tmp_path / str(trial), attempts=9) == CONTENT


def test_what_came_is_kept_when_attempts_run_out_and_the_next_call_goes_on(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0, 0]
    with pytest.raises(
        DataError, match=r"could not be fetched: the connection broke off .*the 100000 of 300000 bytes that came are kept: run the same"
    ):
        _get(server, tmp_path)
    assert _get(server, tmp_path) == CONTENT
    assert server.asked[-1] == "bytes=100000-"


def test_progress_counts_as_success_and_attempts_begin_anew(server: Server, tmp_path: Path) -> None:
    server.cuts = [10_000] * 20
    assert _get(server, tmp_path, attempts=2) == CONTENT


def test_a_server_that_knows_no_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.cuts, server.ranges = [100_000], False
    assert _get(server, tmp_path) == CONTENT


def test_a_file_that_changed_meanwhile_is_not_spliced(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 0, 0]
    with pytest.raises(DataError, match="broke off"):
        _get(server, tmp_path, checksum=None)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert _get(server, tmp_path, checksum=None) == CONTENT[::-1]
    assert server.asked == [None, *["bytes=100000-"] * 3]


def test_a_damaged_half_gets_another_chance_from_the_start(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(b"x" * 100_000)
    assert _get(server, tmp_path) == CONTENT
    assert server.asked == ["bytes=100000-", None]


def test_a_longer_half_than_the_file_starts_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(CONTENT + b"more")
    server.status = [416]
    assert _get(server, tmp_path) == CONTENT


def test_corrupted_bytes_are_refused_and_thrown_away(server: Server, tmp_path: Path) -> None:
    server.content = b"x" + CONTENT[1:]
    with pytest.raises(DataError, match=rf"the file that came has sha256 \w+, expected {CHECKSUM[7:]}; what came was thrown away"):
        _get(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a.zip.lock"]


def test_a_file_that_is_there_but_damaged_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT[:-1])
    assert _get(server, tmp_path) == CONTENT


@pytest.mark.parametrize("claim", [1, 1000])
def test_a_length_that_is_too_long_never_ends_well(server: Server, tmp_path: Path, claim: int) -> None:
    server.claim = claim
    with pytest.raises(DataError, match=f"broke off after 300000 of {300_000 + claim} bytes|broke off after .* of"):
        _get(server, tmp_path)


def test_a_length_that_is_too_short_is_seen_by_size_and_checksum(server: Server, tmp_path: Path) -> None:
    server.claim = -1000
    with pytest.raises(DataError, match="has sha256"):
        _get(server, tmp_path)
    with pytest.raises(DataError, match="is offered with 299000 bytes, expected 300000; it is another file"):
        _get(server, tmp_path, checksum=None, size=len(CONTENT))
    assert _get(server, tmp_path, checksum=None) == CONTENT[:-1000]


def test_without_a_length_the_size_is_checked_when_all_has_come(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "_begin", _without_length(Handler._begin))
    assert _get(server, tmp_path, checksum=None, size=len(CONTENT)) == CONTENT
    server.content = CONTENT[:-5]
    with pytest.raises(DataError, match="299995 bytes, expected 300000"):
        _get(server, tmp_path / "short", checksum=None, size=len(CONTENT))


def _without_length(begin: Callable[[Handler, int, dict[str, str]], None]) -> Callable[[Handler, int, dict[str, str]], None]:
    return lambda self, status, headers: begin(self, status, {name: value for name, value in headers.items() if name != "Content-Length"})


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_to_be_had_is_said_at_once(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status] * 9
    with pytest.raises(DataError, match=rf"is not to be had: the server answers {status} .*give it with --from PATH"):
        _get(server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status, status]
    assert _get(server, tmp_path) == CONTENT


def test_a_web_page_is_no_archive(server: Server, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match=r"answers with a web page and not with a\.zip"):
        _get(server, tmp_path, checksum=None)


def test_redirects_are_followed(server: Server, tmp_path: Path) -> None:
    server.location = server.url + "/elsewhere"
    assert _get(server, tmp_path) == CONTENT


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/file"])
def test_a_redirect_out_of_the_web_reads_nothing(server: Server, tmp_path: Path, place: str) -> None:
    server.location = place
    with pytest.raises(DataError, match=r"leads to|is not to be had"):
        _get(server, tmp_path, checksum=None)
    assert not (tmp_path / "a.zip").exists()


def test_no_server_at_all_is_a_clear_word(tmp_path: Path) -> None:
    with Server() as server:
        url = server.url
    with pytest.raises(
        DataError,
        match=r"could not be fetched: no network, or the server is away \(.*refused.*; try again later, or .* give it with --from PATH",
    ):
        fetch(Download(url=url, file="a.zip"), tmp_path, attempts=2, pause=0.0)


def test_a_server_that_falls_silent_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda _: silence.wait(5))
    with pytest.raises(DataError, match="no network, or the server is away"):
        fetch(Download(url=server.url, file="a.zip"), tmp_path, attempts=1, timeout=0.05)
    silence.set()


CHILD = """
import sys
from pathlib import Path
from fewshot_nsl.data.download import Download, fetch
from fewshot_nsl.data.part import SafeRedirects
download = Download(url=sys.argv[1], file="a.zip", checksum=sys.argv[3])
print("ready", flush=True)
fetch(download, Path(sys.argv[2]), lambda done, total: print(done, flush=True), timeout=20.0)
"""


def _child(server: Server, folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CHILD, server.url, str(folder), CHECKSUM]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_killed_in_the_middle_it_goes_on(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def half_then_wait(self: Handler) -> None:
        self.server.asked.append(self.headers.get("Range"))
        self._begin(200, {"Content-Length": str(len(CONTENT)), "ETag": self.server.tag})
        self.wfile.write(CONTENT[:150_000])
        stop.wait(20)

    with monkeypatch.context() as patch:
        patch.setattr(Handler, "do_GET", half_then_wait)
        child = _child(server, tmp_path)
        assert child.stdout is not None
        while child.stdout.readline().strip() != "150000":
            pass
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
        stop.set()
    kept = (tmp_path / ".a.zip.part").stat().st_size
    assert _get(server, tmp_path) == CONTENT
    assert server.asked == [None, f"bytes={kept}-" if kept else None]


def test_two_processes_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    children = [_child(server, tmp_path) for _ in range(2)]
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0, 0]
    assert _get(server, tmp_path) == CONTENT
    assert server.asked == [None]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "file:///etc/passwd"),
        ("url", "ftp://example.org/a"),
        ("url", "https:///a"),
        ("url", "https://example.org/ä b"),
        ("file", "../a.zip"),
        ("file", "a/b.zip"),
        ("file", ".hidden"),
        ("file", ""),
        ("checksum", "md5:123"),
        ("checksum", "crc:12345678"),
        ("size", 0),
    ],
)
def test_what_a_card_may_not_say(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Download.model_validate({"url": "https://example.org/a", "file": "a"} | {field: value})


def test_a_server_that_ignores_if_range_is_not_spliced(server: Server, tmp_path: Path) -> None:
    server.cuts, server.obeys = [100_000, 0, 0], False
    with pytest.raises(DataError, match="broke off"):
        _get(server, tmp_path, checksum=None)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert _get(server, tmp_path, checksum=None) == CONTENT[::-1]
    assert server.asked[-2:] == ["bytes=100000-", None]


@pytest.mark.parametrize(("checksum", "size"), [(CHECKSUM, len(CONTENT)), (None, None)])
def test_a_server_that_sends_less_than_it_was_asked_for_is_asked_for_the_rest(
    server: Server, tmp_path: Path, checksum: str | None, size: int | None
) -> None:
    server.cuts, server.most = [100_000], 70_000
    assert _get(server, tmp_path, checksum=checksum, size=size) == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=170000-", "bytes=240000-"]


def test_a_stream_without_length_that_breaks_off_keeps_its_bytes_where_the_size_is_known(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "_begin", _without_length(Handler._begin))
    server.cuts = [100_000]
    assert _get(server, tmp_path, size=len(CONTENT)) == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_stream_without_end_is_left_at_the_size(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "_begin", _without_length(Handler._begin))
    server.content = CONTENT * 100
    seen: list[int] = []
    with pytest.raises(DataError, match="bytes came, expected 300000; what came was thrown away"):
        fetch(Download(url=server.url, file="a.zip", size=len(CONTENT)), tmp_path, lambda done, _: seen.append(done))
    assert seen[-1] < 2 * len(CONTENT)


def test_killed_before_the_last_step_nothing_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(CONTENT)
    assert _get(server, tmp_path, size=len(CONTENT)) == CONTENT
    assert server.asked == []


def test_wrong_bytes_in_several_pieces_are_fetched_twice_and_no_more(server: Server, tmp_path: Path) -> None:
    server.cuts = [100_000, 200_000] * 9
    with pytest.raises(DataError, match=r"expected 0{64}; what came was thrown away"):
        _get(server, tmp_path, checksum=f"sha256:{'0' * 64}")
    assert server.asked == [None, "bytes=100000-"] * 2


def test_a_full_disk_is_said_as_it_is_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            _get(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert _get(server, tmp_path) == CONTENT
    assert server.asked == [None, "bytes=150000-"]


def test_without_a_network_nobody_waits(tmp_path: Path) -> None:
    with Server() as server:
        url = server.url
    with pytest.raises(DataError, match="no network, or the server is away"):
        fetch(Download(url=url, file="a.zip"), tmp_path, pause=1e9)


@pytest.mark.parametrize(("old", "new"), [("https", "http"), ("https", "ftp"), ("http", "ftp")])
def test_a_redirect_to_a_less_safe_place_is_refused(old: str, new: str) -> None:
    with pytest.raises(DataError, match=f"{old}://example.org/a leads to {new}://example.org/b, which is not as safe"):
        SafeRedirects().redirect_request(
            urllib.request.Request(f"{old}://example.org/a"), None, 302, "", HTTPMessage(), f"{new}://example.org/b"
        )


def test_redirects_that_lead_in_a_circle_are_refused_in_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda self: self._begin(302, {"Location": self.server.url}))
    with pytest.raises(DataError, match="infinite loop") as caught:
        _get(server, tmp_path)
    assert "\n" not in str(caught.value)
