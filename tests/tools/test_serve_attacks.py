"""A server of an index under attack, over loopback: what it refuses and survives, and that it goes on answering."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import tempfile
import time
import zlib
from contextlib import closing

import mutations
import numpy as np
import PIL
import pytest
import search_server
from dhn.search.server.limits import Limits
from search_server import encoded, form, pixels

LIMITS = Limits(body_seconds=0.4, idle_seconds=0.4)
MEBIBYTE = 1 << 20
FORM = form(b"")[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return search_server.write_index(tmp_path_factory.mktemp("attacked"))


@pytest.fixture(scope="module")
def server(folder):
    with search_server.serving(folder, LIMITS) as server:
        yield server
        assert server.get("/healthz").json == {"status": "ok", "images": search_server.COUNT, "problem": None}


def raw(server, *parts: bytes, pause: float = 0) -> bytes:
    """What the server sends back to these bytes, until it closes the connection."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
            while block := connection.recv(65536):
                answer += block
        except (ConnectionResetError, BrokenPipeError):
            pass
        return answer


def status(answer: bytes) -> int:
    """The status of a raw answer; 0 where the connection was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def head(method: str, path: str, **headers: object) -> bytes:
    """The head of a request."""
    lines = {"host": "localhost", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in lines.items()), "", ""]
    ).encode()


def png(width: int, height: int, rest: bytes = b"") -> bytes:
    """A PNG whose header says a size; its pixels are missing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
        + rest
    )


def large_jpeg() -> bytes:
    """A JPEG whose header says 60000 x 60000 pixels."""
    data = encoded(pixels(0), ".jpg")
    place = data.index(b"\xff\xc0")
    return data[: place + 5] + struct.pack(">HH", 60000, 60000) + data[place + 9 :]


def large_webp() -> bytes:
    """A lossless WebP whose header says 16384 x 16384 pixels."""
    bits = 0x3FFF | 0x3FFF << 14
    content = b"\x2f" + struct.pack("<I", bits) + bytes(20)
    return b"RIFF" + struct.pack("<I", 12 + len(content)) + b"WEBPVP8L" + struct.pack("<I", len(content)) + content


def test_a_large_upload_with_its_length(server):
    answer = server.ask("POST", "/api/search", bytes(60 * MEBIBYTE), content_type=FORM)
    assert answer.status == 413 and answer.json["error"].startswith("body: expected at most 16,777,216 bytes")


def test_a_large_upload_without_its_length(folder):
    begin = head("POST", "/api/search", content_type=FORM, transfer_encoding="chunked")
    start = form(b"")[0].split(b"\r\n--cut--")[0]
    chunks = (b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (start, *[bytes(MEBIBYTE)] * 60))
    with search_server.serving(folder, Limits(idle_seconds=0.4)) as server:
        answer = raw(server, begin, *chunks, b"0\r\n\r\n")
        assert status(answer) == 413 and b"found more" in answer and server.served.pictures.taken == 0


def test_a_length_that_is_a_lie(server):
    for length in ("-1", "1e3", "99999999999999999999999", "5, 6"):
        assert status(raw(server, head("POST", "/api/search", content_length=length, connection="close"))) in (400, 413)
    both = head("POST", "/api/search", content_length=5, transfer_encoding="chunked", connection="close")
    assert status(raw(server, both, b"0\r\n\r\n")) in (400, 415)


def test_a_slow_upload(server):
    begin = head("POST", "/api/search", content_type=FORM, content_length=1000)
    started = time.monotonic()
    answer = raw(server, begin, b"--cut\r\n")
    assert status(answer) == 408 and b"expected within 0.4 s" in answer
    assert time.monotonic() - started < 10, "and the connection ends"


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nhost: localhost\r\nx: "])
def test_a_head_that_does_not_come(server, start):
    assert raw(server, start) == b""


def test_a_head_without_end(server):
    assert status(raw(server, b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * MEBIBYTE)) in (0, 400)
    assert status(raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n")) == 400


def test_a_client_that_does_not_read(folder):
    limits = LIMITS._replace(connections=3)
    with search_server.serving(folder, limits, small_buffers=True) as server, socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", server.port))
        connection.sendall(head("GET", "/page.js") * 40)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(200):
                time.sleep(0.05)
                connection.sendall(b"\r\n")
        assert server.get("/healthz").status == 200


@pytest.mark.parametrize(
    "picture", [png(60000, 60000), png(7072, 7072), large_jpeg(), large_webp(), png(2**31 - 1, 2**31 - 1)]
)
def test_a_picture_of_too_many_pixels(server, picture):
    answer = server.upload(picture)
    wants_more = int(PIL.__version__.split(".")[0]) < 13  # of a WebP than its header
    if wants_more and picture.startswith(b"RIFF"):
        assert answer.status == 415, answer
    else:
        assert answer.status == 413 and "expected at most 50,000,000 pixels" in answer.json["error"], answer


NO_PICTURES = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>1</script></svg>',
    "xml": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><svg>&e;</svg>',
    "gif and script": b"GIF89a/*" + bytes(10) + b"*/=1;alert(1)" + encoded(pixels(0), ".jpg"),
    "html and jpeg": b"<html><script>1</script>" + encoded(pixels(0), ".jpg"),
    "tiff": encoded(pixels(0), ".tiff"),
    "bmp": encoded(pixels(0), ".bmp"),
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "nothing": b"",
    "zeros": bytes(100),
}


@pytest.mark.parametrize("data", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture(server, data):
    answer = server.upload(data, "q.jpg")
    assert answer.status == 415 and answer.json["error"].startswith(
        "image: expected a JPEG, PNG or WebP picture, found "
    )


def test_a_picture_that_is_also_a_page(server):
    page = b"<html><script>alert(1)</script></html>"
    jpeg = encoded(pixels(0), ".jpg")
    comment = jpeg[:2] + b"\xff\xfe" + struct.pack(">H", len(page) + 2) + page + jpeg[2:]
    for picture in (encoded(pixels(0)) + page, jpeg + page, comment):
        answer = server.upload(picture, '<script>alert("1")</script>.html')
        assert answer.status == 200 and answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff" and b"<html>" not in answer.body


def test_a_picture_that_is_cut_short(server):
    for kind in (".jpg", ".png", ".webp"):
        data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
        assert server.upload(data).status == 200
        for part in (0.5, 0.9):
            answer = server.upload(data[: int(len(data) * part)])
            assert answer.status in (415, 422) and answer.json["error"], kind


def test_random_damage_of_a_picture(server):
    random = np.random.default_rng(0)
    for kind in (".jpg", ".png", ".webp"):
        data = np.frombuffer(encoded(random.integers(0, 256, (24, 24, 3), np.uint8), kind), np.uint8)
        for _ in range(25):
            damaged = data.copy()
            damaged[random.integers(0, len(data), 4)] = random.integers(0, 256, 4)
            assert server.upload(damaged.tobytes()).status in (200, 413, 415, 422)


PART = b'--cut\r\ncontent-disposition: form-data; name="%s"\r\n\r\n/etc/passwd\r\n'
BODIES = {
    "no boundary": ("multipart/form-data", b"--cut\r\n"),
    "not a form": (FORM, b"\xff\xfe\0" * 100),
    "two pictures": (FORM, form(b"1")[0].replace(b"--cut--", b"") + form(b"2")[0]),
    "many fields": (FORM, PART % b"top" * 10000),
    "a long field": (form(b"", options={"label": "x" * 5000})[::-1]),
    "an unknown field": (form(b"", options={"url": "http://169.254.169.254/"})[::-1]),
    "a field for a file": (FORM, PART % b"image" + b"--cut--\r\n"),
    "deep json": ("application/json", b"[" * 200_000),
    "deep object": ("application/json", b'{"code":' * 100_000),
    "a list": ("application/json", b"[1]"),
    "not text": ("application/json", b"\xff\xfe"),
    "infinity": ("application/json", b'{"code": [' + b"1e999, " * 11 + b"1]}"),
    "not a number": ("application/json", b'{"code": [' + b"NaN, " * 11 + b"1]}"),
    "text": ("application/json", b'{"code": [' + b'"x", ' * 11 + b"1]}"),
    "switches": ("application/json", b'{"code": [' + b"true, " * 11 + b"1]}"),
    "a large number": ("application/json", b'{"code": [' + b"9" * 400 + b", 1" * 11 + b"]}"),
    "too few": ("application/json", b'{"code": [1, 2]}'),
    "a net": ("application/json", json.dumps({"code": [1] * 12, "weights": "/etc/passwd"}).encode()),
    "a huge top": ("application/json", json.dumps({"code": [1] * 12, "top": 10**9}).encode()),
    "a top of text": ("application/json", json.dumps({"code": [1] * 12, "top": [1]}).encode()),
}  # fmt: skip


def test_json_of_any_kind(server):
    """Each value of a question is of another type, or is missing."""
    asked = {"code": [0.5] * search_server.BITS, "top": 2, "radius": 3, "label": "cat", "unique": True}
    good = json.dumps(asked).encode()
    statuses = []
    for body in [good, *mutations.each_value(good, "1")]:
        answer = server.ask("POST", "/api/search", body, content_type="application/json")
        assert answer.status == 200 or (answer.status == 400 and list(answer.json) == ["error"]), (body, answer)
        statuses.append(answer.status)
    assert statuses[0] == 200 and statuses.count(400) > 200


@pytest.mark.parametrize(("kind", "body"), BODIES.values(), ids=BODIES)
def test_a_body_that_makes_no_sense(server, kind, body):
    answer = server.ask("POST", "/api/search", body, content_type=kind)
    assert answer.status == 400 and list(answer.json) == ["error"], answer


def test_a_body_of_another_type(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "image/png", ""):
        assert server.ask("POST", "/api/search", b"code=1", content_type=kind).status == 415


PATHS = [
    "/api/items/../../../../etc/passwd/image", "/api/items/..%2f..%2f..%2fetc%2fpasswd/image",
    "/api/items/%2e%2e/%2e%2e/etc/passwd/image", "/api/items//etc/passwd/image",
    "/api/items/..%5c..%5cetc%5cpasswd/image",
    "/api/items/cat%2f..%2fcat%2f0.png/image", "/api/items/cat%2f0.png%00.jpg/image", "/api/items/%ff%fe/image",
    "/api/items/image", "/../etc/passwd", "//etc/passwd", "/page.css/../../app.py",
    "/..%2fapp.py", "/page/index.html", "/report",
    "/api/items/file:%2f%2f%2fetc%2fpasswd/image", "/api/items/http:%2f%2f127.0.0.1%2f/image",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_key_that_is_a_path(server, path):
    answer = raw(server, head("GET", path, connection="close"))
    assert status(answer) in (400, 404) and b"root:" not in answer and b"import" not in answer
    assert server.get("/api/items/cat%2F0.png/image").body == encoded(pixels(0))


HOSTS = {
    "localhost": 200, "localhost:8000": 200, "LOCALHOST": 200, "127.0.0.1:1": 200,
    "[::1]:8000": 200, "192.168.1.2": 200,
    "search.example": 200,
    "evil.example": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example": 421, "[::1": 421,
    "evil.example@localhost": 421,
    "localhost@evil.example": 421, "": 421, "127.1": 421, "a,localhost": 421, "localhost/": 421,
}  # fmt: skip


def test_another_host(folder, server):
    with search_server.serving(folder, names=("search.example",)) as named:
        for host, expected in HOSTS.items():
            answer = raw(named, head("GET", "/healthz", host=host, connection="close"))
            assert status(answer) == expected, host
    assert server.get("/healthz", host="search.example").status == 421
    assert status(raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")) == 421
    two = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n"
    assert status(raw(server, two)) in (400, 421)


def test_another_sites_page(server):
    own = f"127.0.0.1:{server.port}"
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": f"http://{own}.evil.example"},
        {"origin": "http://[::1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ):
        answer = server.upload(encoded(pixels(0)), **headers)
        assert answer.status == 403 and not [name for name in answer.headers if name.startswith("access-control")]
    assert server.get("/api/about", origin="http://evil.example").status == 403
    asked = server.ask("OPTIONS", "/api/search", origin=f"http://{own}", access_control_request_method="POST")
    assert asked.status == 405 and not [name for name in asked.headers if name.startswith("access-control")]
    assert server.upload(encoded(pixels(0)), origin=f"http://{own}", sec_fetch_site="same-origin").status == 200


def test_every_answer_has_the_headers(server):
    answers = [
        server.get(path)
        for path in (
            "/",
            "/page.css",
            "/page.js",
            "/openapi.json",
            "/api/about",
            "/none",
            "/api/items/cat%2F0.png/image",
        )
    ]
    answers += [server.get("/", host="evil.example"), server.upload(b""), server.ask("DELETE", "/api/search")]
    assert {answer.status for answer in answers} == {200, 404, 405, 415, 421}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith(("default-src 'self';", "default-src 'none';")) and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and "server" not in answer.headers
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def ask_at_once(port: int, requests: list[bytes]) -> list[tuple[int, bool]]:
    """(status, whether the answer says when to retry) of requests that are all sent at the same time."""

    async def ask(request: bytes) -> tuple[int, bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        try:
            answer = await asyncio.wait_for(reader.read(), 30)
        except ConnectionResetError:
            return 0, False
        finally:
            writer.close()
        return status(answer), b"\r\nretry-after: " in answer.lower()

    return await asyncio.gather(*map(ask, requests))


@pytest.mark.parametrize("limits", [Limits(uploads=2), Limits(connections=20)], ids=["uploads", "connections"])
def test_two_hundred_clients_at_once(folder, limits):
    body, kind = form(encoded(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)))
    request = head("POST", "/api/search", content_type=kind, content_length=len(body), connection="close") + body
    if limits.connections < 200:
        request = head("GET", "/api/search?key=cat%2F0.png", connection="close")
    with search_server.serving(folder, limits) as server:
        answers = asyncio.run(ask_at_once(server.port, [request] * 200))
        assert all(retry for number, retry in answers if number == 503)
        assert {number for number, _ in answers} == {200, 503}
        end = time.monotonic() + 10
        while (after := server.upload(encoded(pixels(0)))).status == 503 and time.monotonic() < end:
            time.sleep(0.05)  # until it has noticed that all those have gone
        assert after.status == 200 and server.served.pictures.taken == 0


def test_nothing_uploaded_is_kept(folder, server, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("an upload is written to a file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.parent.rglob("*"))
    large = encoded(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8))
    assert len(large) > 5 * MEBIBYTE and server.upload(large).status == 200
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.parent.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
