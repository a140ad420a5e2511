"""One HTTP connection: uvicorn's protocol with bounds that uvicorn does not have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from dhn.search.server.limits import Limits
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

FULL = json.dumps({"error": "the server has as many connections as it takes; try again"})


class Connection(HttpToolsProtocol):
    """A connection that does not wait for its client for ever, nor for the end of a head that has none.

    It ends if for `idle_seconds` the head of its next request is incomplete, its client takes no byte of an answer, or
    goes on to send a body that was already answered. uvicorn's own timeout covers only the pause between two requests.
    A head of more than `head_bytes` is answered 400. Beyond `connections` a new one is answered 503. The limits are the
    application's (`app.state.limits`).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits: Limits = self.config.loaded_app.state.limits
        self._state: tuple | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False
        self._in_body, self._head_bytes = False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            head = f"HTTP/1.1 503 Service Unavailable\r\nretry-after: {self._limits.retry_seconds}\r\n"
            head += f"content-type: application/json\r\ncontent-length: {len(FULL)}\r\nconnection: close\r\n\r\n"
            transport.write((head + FULL).encode())
            self._full = True
            self._timer = self.loop.call_later(self._limits.retry_seconds, transport.close)
        else:
            self._watch()

    def data_received(self, data: bytes) -> None:
        if self._full:  # what is sent to a full server is forgotten, so that its client reads the answer
            return
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._head_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self.send_400_response(f"expected a request's head of at most {self._limits.head_bytes:,} bytes")

    def on_headers_complete(self) -> None:
        self._in_body, self._head_bytes = True, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Abort the connection if it is where it was `idle_seconds` ago, and it is the client who is late."""
        unsent = self.transport.get_write_buffer_size()
        complete = self.cycle is None or self.cycle.response_complete
        state = (self.cycle, self._in_body, complete, unsent)
        if state == self._state and (complete or unsent):
            self.transport.abort()
            return
        self._state = state
        self._timer = self.loop.call_later(self._limits.idle_seconds, self._watch)
