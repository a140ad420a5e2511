"""ASGI middleware: who may ask, how much a request may send, and the headers of every answer."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

import anyio
from dhn.search.server.limits import Limits
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
SENT = {0xDC00 + byte: 0xF700 + byte for byte in range(128, 256)}  # surrogateescape's, as private characters
RECEIVED = {private: escaped for escaped, private in SENT.items()}
HOST = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^][:@/?#\s]+))(?::\d+)?")


class RequestError(Exception):
    """A request that is refused: the HTTP status, and a sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class JsonAnswer(JSONResponse):
    """An answer in JSON. A byte of a file's name that is not UTF-8 is a character of SENT there, for no text in JSON
    and no address can hold it; `received` takes it back."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.translate(SENT).encode(errors="backslashreplace")


def received(text: str) -> str:
    """A text of a request with the bytes that the characters of SENT stand for."""
    return text.translate(RECEIVED)


def error_answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JsonAnswer:
    """The answer to a request that is refused."""
    return JsonAnswer({"error": sentence}, status, headers)


class AnswerHeaders:
    """Adds HEADERS to every answer that does not set its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, add)


class SameSite:
    """Refuses requests that another site's page caused in a user's browser.

    The Host header must be an IP address, localhost or one of `names`: a page of evil.example whose name was pointed
    at this machine (DNS rebinding) says evil.example there. The Origin header, if there is one, must be the Host's.
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = ()) -> None:
        self.app = app
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            sentence = (
                f"Host {', '.join(hosts) or 'missing'}: expected localhost, an IP address or a name of --allow-host"
            )
            return await error_answer(421, sentence)(scope, receive, send)
        origin = headers.get("origin")
        if origin is not None and host_of(origin) != hosts[0].lower():
            return await error_answer(403, f"Origin {origin}: expected this server's own page")(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site", "none") not in (
            "same-origin",
            "none",
        ):
            return await error_answer(403, "asked by another site's page: expected this server's own")(
                scope, receive, send
            )
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        match = HOST.fullmatch(host.lower())
        if match is None or match["name"] in self.names:
            return match is not None
        try:
            ipaddress.ip_address(match["address"] or match["name"])
        except ValueError:
            return False
        return True


def host_of(origin: str) -> str | None:
    """The host and port of an Origin header; None where it has none ("null")."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


class BodyLimit:
    """Counts the bytes of a request's body and the seconds that it takes: 413 or 408 beyond the limits.

    Starlette's own bounds do not hold for files. What is over the limit never reaches the application; it is received
    and forgotten, up to DRAINED bytes and as long as the time lasts, for a client that is still sending reads no
    answer.
    """

    DRAINED = 1 << 28

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most, end = self.limits.upload_bytes, anyio.current_time() + self.limits.body_seconds
        too_large = RequestError(413, f"body: expected at most {most:,} bytes, found more; send a smaller picture")
        headers = Headers(scope=scope)
        count, unread = 0, "content-length" in headers or "transfer-encoding" in headers

        async def receive_in_time() -> Message:
            nonlocal count, unread
            message: Message | None = None
            with anyio.move_on_after(end - anyio.current_time()):
                message = await receive()
            if message is None:
                unread = False  # it is not waited for any more
                raise RequestError(408, f"body: expected within {self.limits.body_seconds:g} s, found it unfinished")
            count += len(message.get("body", b""))
            unread = message.get("more_body", False)
            return message

        async def receive_counted() -> Message:
            message = await receive_in_time()
            if count > most:
                raise too_large
            return message

        async def send_after_body(message: Message) -> None:
            with contextlib.suppress(RequestError):
                while unread and count < self.DRAINED and message["type"] == "http.response.start":
                    await receive_in_time()
            await send(message)

        if int(headers.get("content-length", "0")) > most:  # the parser lets only digits pass
            await error_answer(too_large.status, str(too_large))(scope, receive, send_after_body)
        else:
            await self.app(scope, receive_counted, send_after_body)
