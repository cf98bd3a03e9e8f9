"""Downloads against a server on this machine that behaves well, badly, or not at all."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metarep.data.datasets.download import fetch
from metarep.data.datasets.options import Options
from metarep.errors import DataError

CONTENT = bytes(range(256)) * 1200


class Server(ThreadingHTTPServer):
    """Serves CONTENT; what goes wrong is set by the test. ``asked`` holds the Range of every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.ranges, self.cut, self.cuts, self.shift, self.status, self.length = True, 0, 0, 0, 200, True
        self.url = f"http://127.0.0.1:{self.server_port}/digits.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            begin = start + self.server.shift
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: self.server.cut]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("METAREP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("METAREP_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def part_of(tmp_path: Path, content: bytes) -> Path:
    part = tmp_path / "cache" / "downloads" / "digits.zip.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    return part


def test_downloaded_once(server: Server, tmp_path: Path) -> None:
    path = fetch(server.url, "digits.zip", Options())
    assert path == tmp_path / "cache" / "downloads" / "digits.zip"
    assert path.read_bytes() == CONTENT
    assert fetch(server.url, "digits.zip", Options()) == path
    assert server.asked == [None]
    assert not list(path.parent.glob("*.part"))


def test_the_users_own_folder_comes_first(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "digits.zip").write_bytes(b"my copy")
    assert fetch(server.url, "digits.zip", Options(data_dir=mine)).read_bytes() == b"my copy"
    monkeypatch.setenv("METAREP_DATA", str(mine))
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == b"my copy"
    assert server.asked == []


def test_an_interrupted_download_is_carried_on(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path, CONTENT[:1000])
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000-"]


def test_a_server_that_ignores_ranges_sends_it_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    part_of(tmp_path, b"x" * 1000)
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT


def test_a_connection_that_breaks_off_is_taken_up_again(server: Server) -> None:
    server.cut, server.cuts = 70_000, 2
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=70000-", "bytes=140000-"]


def test_a_truncated_file_never_takes_its_real_name(server: Server, tmp_path: Path) -> None:
    server.cut, server.cuts = 10, 99
    with pytest.raises(DataError, match="ended after 30 of 307,200 bytes"):
        fetch(server.url, "digits.zip", Options())
    assert not (tmp_path / "cache" / "downloads" / "digits.zip").exists()
    server.cuts = 0  # later the network is better
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=30-"


@pytest.mark.parametrize("have", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_complete_or_too_long(server: Server, tmp_path: Path, have: int) -> None:
    part_of(tmp_path, (CONTENT + b"extra")[:have])
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT
    assert len(server.asked) == (1 if have == len(CONTENT) else 2)


def test_a_wrong_range_is_not_glued_on(server: Server, tmp_path: Path) -> None:
    server.shift = 5
    part_of(tmp_path, CONTENT[:1000])
    with pytest.raises(DataError, match="another part of the file"):
        fetch(server.url, "digits.zip", Options(), tries=2)


def test_without_a_length_the_end_is_the_end(server: Server) -> None:
    server.length = False
    assert fetch(server.url, "digits.zip", Options()).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [404, 500])
def test_a_refusal_says_where_to_put_a_copy(server: Server, status: int) -> None:
    server.status = status
    with pytest.raises(DataError) as caught:
        fetch(server.url, "digits.zip", Options())
    for words in ("digits.zip", server.url, str(status), "METAREP_DATA", "data_dir"):
        assert words in str(caught.value)
    assert len(server.asked) == 1


def test_no_network_says_where_to_put_a_copy(server: Server) -> None:
    url = "http://127.0.0.1:1/digits.zip"  # nobody listens on port 1
    with pytest.raises(DataError) as caught:
        fetch(url, "digits.zip", Options())
    for words in ("digits.zip", url, "refused", "METAREP_DATA", "data_dir"):
        assert words in str(caught.value)


def test_two_at_once_download_once(server: Server) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(server.url, "digits.zip", Options()))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in found] == [True] * 3
    assert server.asked == [None]


def test_a_data_dir_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="data_dir"):
        Options(data_dir=tmp_path / "missing")
    monkeypatch.setenv("METAREP_DATA", str(tmp_path / "missing"))
    with pytest.raises(DataError, match="METAREP_DATA"):
        Options()
    with pytest.raises(DataError, match="at least 1 pixel"):
        Options(size=0, data_dir=tmp_path)
