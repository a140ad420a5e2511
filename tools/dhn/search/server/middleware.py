"""ASGI middleware: who may ask, how much a request may send, and the headers of every answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
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


class RequestError(Exception):
    """A request that is refused: the HTTP status, and a sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def error_answer(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse({"error": sentence}, status, headers)


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
        if origin is not None and urlsplit_or_none(origin) != hosts[0].lower():
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
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # half an IPv6 address
            return False
        if name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def urlsplit_or_none(origin: str) -> str | None:
    """The host and port of an Origin header; None where it has none ("null")."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


class BodyLimit:
    """Counts the bytes of a request's body and the seconds that it takes: 413 or 408 beyond the limits.

    Starlette's own bounds do not hold for files. A Content-Length that says too much is refused before the body is
    read. What is over the limit never reaches the application.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        most = self.limits.upload_bytes
        too_large = RequestError(413, f"body: expected at most {most:,} bytes, found more; send a smaller picture")
        length = Headers(scope=scope).get("content-length", "0")
        if int(length) > most:  # h11 lets only digits pass
            return await error_answer(too_large.status, str(too_large))(scope, receive, send)
        end = anyio.current_time() + self.limits.body_seconds
        count = 0

        async def count_bytes() -> Message:
            nonlocal count
            with anyio.move_on_after(end - anyio.current_time()) as scope_:
                message = await receive()
            if scope_.cancelled_caught:
                raise RequestError(408, f"body: expected within {self.limits.body_seconds:g} s, found it unfinished")
            count += len(message.get("body", b""))
            if count > most:
                raise too_large
            return message

        await self.app(scope, count_bytes, send)
