"""The downloader against a server on loopback: resumed, redirected to a mirror, and never left wrong or half."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading

import pytest
from dhn import download as module
from dhn.download import DownloadError, download, is_complete

BODY = bytes(range(256)) * 4000
DIGEST = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /good, /cut (breaks off once), /norange (ignores Range), /wrong, /missing, /busy (503)."""

    cuts = 0
    requests: list = []  # noqa: RUF012

    def do_GET(self):
        name = self.path.lstrip("/")
        wanted = self.headers.get("Range")
        Handler.requests.append((name, wanted))
        if name in ("missing", "busy"):
            self.send_error(404 if name == "missing" else 503)
            return
        body = BODY[::-1] if name == "wrong" else BODY
        start = int(wanted[6:-1]) if wanted and name != "norange" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        piece = body[start:]
        if name == "cut" and Handler.cuts > 0:
            Handler.cuts -= 1
            piece = piece[: len(piece) // 2]
        self.wfile.write(piece)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    Handler.cuts, Handler.requests = 0, []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/"
    httpd.shutdown()
    httpd.server_close()


def test_downloads_once(server, tmp_path):
    target = tmp_path / "deep" / "file"
    assert download([server + "good"], target, DIGEST)
    assert target.read_bytes() == BODY
    assert not download([server + "good"], target, DIGEST)
    assert len(Handler.requests) == 1


def test_a_transfer_that_breaks_off_is_resumed(server, tmp_path):
    Handler.cuts = 2
    assert download([server + "cut"], tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY
    half, three_quarters = len(BODY) // 2, len(BODY) * 3 // 4
    assert [wanted for _, wanted in Handler.requests] == [None, f"bytes={half}-", f"bytes={three_quarters}-"]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_was_received_serves_the_next_attempt(server, tmp_path):
    Handler.cuts = 3
    with pytest.raises(DownloadError, match="broke off after"):
        download([server + "cut"], tmp_path / "file", DIGEST)
    assert not (tmp_path / "file").exists()
    kept = (tmp_path / "file.part").stat().st_size
    assert download([server + "good"], tmp_path / "file", DIGEST)
    assert Handler.requests[-1] == ("good", f"bytes={kept}-")


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY[:1000])
    assert download([server + "norange"], tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_foreign_part_is_thrown_away(server, tmp_path):
    (tmp_path / "file.part").write_bytes(b"something else")
    assert download([server + "good"], tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


def test_a_part_that_is_already_complete_is_taken(server, tmp_path):
    (tmp_path / "file.part").write_bytes(BODY)
    assert download([server + "good"], tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize("first", ["missing", "wrong", "busy"])
def test_the_next_mirror_is_tried(server, tmp_path, first):
    assert download([server + first, server + "good"], tmp_path / "file", DIGEST)
    assert (tmp_path / "file").read_bytes() == BODY


@pytest.mark.parametrize(
    "address", [":http//a/b", f"http://127.0.0.1:{10**20}/b", f"http://{'a' * 400}.example/b", "http://[::1/b"]
)
def test_what_is_no_address_is_passed_over(server, tmp_path, address):
    target = tmp_path / "file"
    with pytest.raises(DownloadError, match=r"no address that can be asked|Servname not supported"):
        download([address], target, DIGEST)
    assert download([address, server + "good"], target, DIGEST)


def test_when_no_mirror_gives_it_the_error_says_what_to_do(server, tmp_path):
    urls = [server + "missing", server + "wrong", "http://127.0.0.1:9/closed"]
    with pytest.raises(DownloadError) as caught:
        download(urls, tmp_path / "file", DIGEST)
    text = str(caught.value)
    for part in ("HTTP 404", "another file than expected", "refused", str(tmp_path / "file"), DIGEST, *urls):
        assert part in text
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_known_by_its_sha1_or_by_its_contents(server, tmp_path):
    digest = hashlib.sha1(BODY).hexdigest()
    assert download([server + "wrong", server + "good"], tmp_path / "file", digest)
    assert not download([server + "good"], tmp_path / "file", digest)

    blob_id = hashlib.sha1(b"blob %d\0" % len(BODY) + BODY).hexdigest()
    assert download([server + "wrong", server + "good"], tmp_path / "blob", f"git:{blob_id}")
    with pytest.raises(DownloadError, match=f"git blob id: {blob_id}"):
        download([server + "wrong"], tmp_path / "another blob", f"git:{blob_id}")

    def begins_with_zero(path):
        if path.read_bytes()[:1] != b"\0":
            raise ValueError("it begins with something else")

    assert download([server + "wrong", server + "good"], tmp_path / "other", begins_with_zero)
    assert (tmp_path / "other").read_bytes() == BODY
    with pytest.raises(DownloadError, match=f"another file than expected .SHA-1: {digest}"):
        download([server + "wrong"], tmp_path / "third", digest)
    with pytest.raises(DownloadError, match="known by its contents"):
        download([server + "wrong"], tmp_path / "fourth", begins_with_zero)


def test_gunzip_checks_what_the_file_holds(tmp_path):
    for level in (1, 9):
        (tmp_path / "file.gz").write_bytes(gzip.compress(BODY, level))
        assert is_complete(tmp_path / "file.gz", DIGEST, gunzip=True)
    whole = (tmp_path / "file.gz").read_bytes()
    (tmp_path / "file.gz").write_bytes(whole[: len(whole) // 2])
    assert not is_complete(tmp_path / "file.gz", DIGEST, gunzip=True)
    (tmp_path / "file.gz").write_bytes(BODY)
    assert not is_complete(tmp_path / "file.gz", DIGEST, gunzip=True)
