"""A sample: what `tools/serve.py` takes for queries by key that several clients send, or for a query by a picture."""

from __future__ import annotations

import http.client
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import nearest

CLIENTS, QUERIES, TOP = 8, 100, 20  # queries of each client
PICTURES = 15  # queries by a picture, one after the other
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
RELEASED = os.path.join(ROOT, "prototxt", "cifar10", "squeezenet", "released", "dhn-48")


def setup(folder: str, items: int, bits: int, distinct: int, quantile: float | None = None):
    """`seconds` are those of the query by key that the share `quantile` of all queries is not slower than; the clients
    are threads of one process, and what they take is in it. Without it: what a query by a picture takes beyond a
    forward of the net that makes its code, the median of each."""
    path = nearest.index_of(folder, items, bits, distinct, None if quantile is not None else RELEASED)
    process = subprocess.Popen(
        [sys.executable, "-c", ENDING, os.path.join(ROOT, "tools", "serve.py"), path, "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    port = int(re.search(rb":(\d+)/", process.stdout.readline())[1])
    sample = of_keys(port, items, quantile) if quantile is not None else of_pictures(port, folder)
    sample()
    return sample


def of_keys(port: int, items: int, quantile: float) -> Callable[[], dict[str, float]]:
    """Queries by key, of all clients at a time, each over a connection of its own."""

    def ask(client: int, seconds: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for query in range(QUERIES):
            key = f"{(client * 7919 + query * 104729) % items:08d}"
            seconds.append(timed(connection, "GET", f"/api/search?key={key}&top={TOP}"))
        connection.close()

    def sample() -> dict[str, float]:
        seconds: list[float] = []
        clients = [threading.Thread(target=ask, args=(client, seconds)) for client in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert len(seconds) == CLIENTS * QUERIES, "a client failed"
        return {"seconds": sorted(seconds)[int(quantile * len(seconds))]}

    return sample


def of_pictures(port: int, folder: str) -> Callable[[], dict[str, float]]:
    """Queries by a JPEG file of 500x375 and forwards of one image, by turns."""
    import caffe

    net = caffe.Net(os.path.join(RELEASED, "deploy.prototxt"), caffe.TEST)
    net.blobs["data"].reshape(1, *net.blobs["data"].shape[1:])
    with open(os.path.join(folder, "photos", "00000.jpg"), "rb") as stream:
        picture = stream.read()
    form = (
        b'--limit\r\nContent-Disposition: form-data; name="image"; filename="q.jpg"\r\n\r\n%b\r\n--limit--\r\n'
        % picture
    )
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def sample() -> dict[str, float]:
        queries, forwards = [], []
        for _ in range(PICTURES):
            start = time.perf_counter()
            net.forward()
            forwards.append(time.perf_counter() - start)
            heading = {"Content-Type": "multipart/form-data; boundary=limit"}
            queries.append(timed(connection, "POST", f"/api/search?top={TOP}", form, heading))
        return {"seconds": statistics.median(queries) - statistics.median(forwards)}

    return sample


def timed(connection: http.client.HTTPConnection, *request: object) -> float:
    """The seconds from a request to the whole of its answer."""
    start = time.perf_counter()
    connection.request(*request)
    answer = connection.getresponse()
    answer.read()
    seconds = time.perf_counter() - start
    assert answer.status == 200, answer.status
    return seconds


# the server's process ends with this one, however it ends: its standard input does
ENDING = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
