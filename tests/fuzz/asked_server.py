"""The search server, asked without a socket: for the fuzzer, whose namespace has no network."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from pathlib import Path
from urllib.parse import quote

import search_server
from dhn.search.items import SearchError
from dhn.search.server import run
from dhn.search.server.connection import Connection
from dhn.search.server.limits import Limits
from starlette.applications import Starlette
from uvicorn.server import ServerState

LIMITS = Limits(body_seconds=1, idle_seconds=0.2)
CODE = ",".join(["0.5", "-1"] * 4)
KEY = "00000001_crow%2F3.jpg"
HEAD = "host: localhost\r\norigin: http://localhost\r\nrange: bytes=0-400\r\n"
REQUESTS = {
    "key": f"/api/search?key={KEY}&top=2&radius=3&label=crow&unique=1&format=csv",
    "code": f"/api/search?code={CODE}&format=json",
    "items": "/api/items?count=3&seed=4&label=tit",
    "picture": f"/api/items/{KEY}/image",
    "page": "/page.js",
}
QUESTION = {"code": [0.5, -1] * 4, "top": 2, "radius": 3, "label": "crow", "unique": True}
_ELSE = re.compile(r'date: [^\r]*|"milliseconds":[^,}]*|last-modified: [^\r]*|etag: [^\r]*')  # which the time decides


def write(picture: str) -> None:
    """Requests, whole or their bodies, as files: `NAME.http`, `asked.json`, `asked.form`."""
    for name, path in REQUESTS.items():
        Path(f"{name}.http").write_text(f"GET {path} HTTP/1.1\r\n{HEAD}\r\n", newline="")
    Path("asked.json").write_text(json.dumps(QUESTION))
    options = {name: str(QUESTION[name]) for name in ("top", "radius", "label")} | {"unique": "1"}
    Path("asked.form").write_bytes(search_server.form(Path(picture).read_bytes(), options=options)[0])


def post(body: bytes, kind: str) -> bytes:
    """The request that has this body."""
    head = f"POST /api/search HTTP/1.1\r\n{HEAD}content-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def send(folder: str, request: bytes) -> int:
    """Send these bytes to the server of an index, over a pair of sockets, and print what it sends back.

    Returns 0 for an answer, 1 for a refusal or nothing. What the server fails of is in its log, on standard error.
    """
    app = run.open_application(folder, limits=LIMITS)
    found = _ELSE.sub("", asyncio.run(_sent(app, request)).decode(errors="replace"))
    app.state.served.close()
    print(found or "no answer", flush=True)
    statuses = re.findall(r"^HTTP/1.1 (\d+)", found, re.MULTILINE)
    assert "500" not in statuses
    return 0 if statuses and statuses[-1][0] in "23" else 1


async def _sent(app: Starlette, request: bytes) -> bytes:
    """What comes back until the server closes the connection."""
    loop, configuration = asyncio.get_running_loop(), run.configuration(app)
    configuration.load()
    theirs, ours, state = *socket.socketpair(), ServerState()
    await loop.connect_accepted_socket(lambda: Connection(configuration, state, {}), theirs)
    ours.setblocking(False)
    found = b""
    with ours, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        sending = asyncio.ensure_future(loop.sock_sendall(ours, request))
        while block := await loop.sock_recv(ours, 1 << 16):
            found += block
        await sending
    await asyncio.gather(*state.tasks)  # an answer that nobody reads is worked out all the same
    return found


def ask_all(folder: str, key: str, picture: str) -> int:
    """Open the index of a folder as the server does and print its answers of each kind; returns an exit status.

    An answer of status 500 is raised as what the server failed of.
    """
    try:
        app = run.open_application(folder)
    except (SearchError, OSError) as error:
        print(error)
        return 1
    body, kind = search_server.form(Path(picture).read_bytes())
    name = quote(key)
    paths = ["/api/about", "/openapi.json", "/healthz", "/report", "/api/items?count=5", f"/api/items/{name}/image"]
    searches = [f"/api/search?key={name}{options}" for options in ("", "&top=2&unique=true", "&radius=3&format=csv")]
    for path in [*paths, *searches]:
        print(path, asyncio.run(_ask(app, "GET", path)))
    print("a picture", asyncio.run(_ask(app, "POST", "/api/search", body, kind)), flush=True)
    app.state.served.close()
    return 0


async def _ask(app: Starlette, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str]:
    """The status of the answer, and its text without what the time decides."""
    path, _, query = path.partition("?")
    request = iter([{"type": "http.request", "body": body, "more_body": False}])
    answers = []

    async def receive() -> dict:
        message = next(request, None)
        return {"type": "http.disconnect"} if message is None else message

    async def send(message: dict) -> None:
        answers.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": headers, "http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "root_path": "",
        "server": ("localhost", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    content = b"".join(each.get("body", b"") for each in answers).decode(errors="replace")
    with contextlib.suppress(ValueError):
        content = {name: each for name, each in json.loads(content).items() if name != "milliseconds"}
    return answers[0]["status"], str(content)
