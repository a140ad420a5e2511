"""The threads behind data layers: `workers` decode images, a `Prefetcher` makes batches ahead of need.

A forked child has none of its parent's threads, and what these held is lost there. So the child starts threads of its
own: `workers` gives it a new pool, and a `Prefetcher` that was running says so by `orphaned`.
"""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()
_running: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


def workers() -> ThreadPoolExecutor:
    """The threads that decode images, one a CPU, shared by all data layers."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="caffe-decode")
        return _pool


class Prefetcher:
    """Calls `produce` in a background thread, up to `depth` results ahead of `next`.

    The thread starts with the first `next` and ends with `stop`, when the prefetcher is collected or when `produce`
    raises; what it raised comes out of `next`. `produce` must not refer to whoever holds the prefetcher.

    Attributes:
        orphaned: True in a child forked while the thread ran. What was made ahead is lost, and `produce` may have been
            cut off half-way: put what it reads from back to a known state, then call `stop`.
    """

    def __init__(self, produce: Callable[[], Any], depth: int):
        self._produce, self._depth = produce, depth
        self._thread: threading.Thread | None = None
        self.orphaned = False

    def next(self) -> Any:
        """The oldest result, waiting for it where needed."""
        if self._thread is None:
            import cv2  # noqa: F401  # a child forked while the thread imports it would wait for that without end

            self._ready: queue.Queue = queue.Queue(self._depth)
            self._failure: BaseException | None = None
            stop = threading.Event()
            arguments = (self._produce, self._ready, stop)
            self._thread = threading.Thread(target=_run_ahead, args=arguments, name="caffe-prefetch", daemon=True)
            self._finalizer = weakref.finalize(self, _end, self._thread, self._ready, stop)
            self._thread.start()
            _running.add(self)
        if self._failure is None:
            result, self._failure = self._ready.get()
        if self._failure is not None:
            raise self._failure
        return result

    def stop(self) -> None:
        """End the thread and forget what it made ahead; the next `next` starts another."""
        self.orphaned = False
        if self._thread is not None:
            self._finalizer()
            self._thread.join()
            self._thread = None

    def abandon(self) -> None:
        """Forget the thread without waiting for it: after a fork it is not there, and its queue may be locked."""
        if self._thread is not None:
            self._finalizer.detach()
            self._thread = None
            self.orphaned = True


def _run_ahead(produce: Callable[[], Any], ready: queue.Queue, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            made = (produce(), None)
        except BaseException as error:
            ready.put((None, error))
            return
        ready.put(made)


def _end(thread: threading.Thread, ready: queue.Queue, stop: threading.Event) -> None:
    """Stop the thread: with room in the queue, its `put` returns and it sees the event."""
    stop.set()
    while not ready.empty():
        try:
            ready.get_nowait()
        except queue.Empty:
            break
    if thread.is_alive() and thread is not threading.current_thread():  # a signal may come before it has begun
        thread.join(timeout=10)


def _after_fork() -> None:
    """Give up, in a forked child, the threads that stayed with the parent."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()
    for prefetcher in list(_running):
        prefetcher.abandon()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork)
