"""One HTTP connection: uvicorn's protocol with bounds that uvicorn does not have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from dhn.search.server.limits import Limits
from uvicorn.protocols.http.h11_impl import H11Protocol

FULL = json.dumps({"error": "the server has as many connections as it takes; try again"})


class Connection(H11Protocol):
    """A connection that does not wait for its client for ever.

    It ends if for `idle_seconds` the head of its next request is incomplete, its client takes no byte of an answer, or
    goes on to send a body that was already answered. uvicorn's own timeout covers only the pause between two requests.
    Beyond `connections` a new one is answered 503. The limits are the application's (`app.state.limits`).
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limits: Limits = self.config.loaded_app.state.limits
        self._state: tuple | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._full = False

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
        if not self._full:  # what is sent to a full server is forgotten, so that its client reads the answer
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Abort the connection if it is where it was `idle_seconds` ago, and it is the client who is late."""
        unsent = self.transport.get_write_buffer_size()
        no_head = self.conn.their_state is h11.IDLE
        answered = self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY
        state = (self.cycle, no_head, answered, unsent)
        if state == self._state and (no_head or answered or unsent):
            self.transport.abort()
            return
        self._state = state
        self._timer = self.loop.call_later(self._limits.idle_seconds, self._watch)
