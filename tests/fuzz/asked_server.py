"""The search server, asked without a socket: for the fuzzer, whose namespace has no network."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from urllib.parse import quote

import search_server
from dhn.search.items import SearchError
from dhn.search.server import run
from starlette.applications import Starlette


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
