"""Threads that compute for the event loop, with a bound on how much waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class FullError(Exception):
    """More work waits than the bound allows."""


class Workers:
    """`threads` threads for at most `places` tasks at a time. Used from one event loop."""

    def __init__(self, name: str, threads: int, places: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.places, self.taken = places, 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for as long as a request needs it. Raises FullError where none is free."""
        if self.taken >= self.places:
            raise FullError
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    async def run(self, task: Callable[..., T], *arguments: object) -> T:
        """What task(*arguments) returns, computed in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, task, *arguments)

    def close(self) -> None:
        """End the threads, as soon as they have finished what they do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
