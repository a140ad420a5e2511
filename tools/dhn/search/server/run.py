"""Runs the server: in this process, or in several that share one socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import uvicorn
from dhn.search.server.app import application
from dhn.search.server.connection import Connection
from dhn.search.server.limits import Limits
from dhn.search.server.served import Served
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0: any free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=512)
    # of connections too: else the body of an answer waits 40 ms for the client to acknowledge the header
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def open_application(
    folder: str | os.PathLike,
    names: Collection[str] = (),
    limits: Limits = Limits(),  # noqa: B008
    gpu: int | None = None,
    verify: bool = True,
) -> Starlette:
    """The application of an index folder. Raises SearchError where there is no complete index."""
    return application(Served(folder, limits, gpu, verify), limits, names)


def serve(
    folder: str | os.PathLike,
    listening: socket.socket,
    names: Collection[str] = (),
    workers: int = 1,
    gpu: int | None = None,
    ready: Callable[[], object] = lambda: None,
) -> None:
    """Answer on a listening socket until SIGINT or SIGTERM.

    names: host names it may be asked by, besides localhost and IP addresses. gpu: that computes codes.
    ready() is called when the index is open
    and its digests were found right. Raises SearchError for an index that cannot be served.
    """
    app = open_application(folder, names, gpu=gpu)
    ready()
    if workers == 1:
        uvicorn.Server(configuration(app)).run([listening])
        return
    each = partial(open_application, folder, names, gpu=gpu, verify=False)  # the digests were just compared
    app.state.served.close()
    Multiprocess(configuration(each, factory=True, workers=workers), [listening]).run()


def configuration(app: Callable, **options: Any) -> uvicorn.Config:
    """How uvicorn runs an application: no log of requests, no name of the server, no trust in forwarded addresses."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        timeout_worker_healthcheck=120,  # a worker that still imports torch is not dead
        **options,
    )
