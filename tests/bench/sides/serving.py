"""A sample: what `tools/serve.py` takes for queries by key that several clients send, or for a query by a picture."""

from __future__ import annotations

import http.client
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import nearest

CLIENTS, SECONDS, TOP = 8, 3, 20
PICTURES = 15  # queries by a picture, one after the other
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..")
RELEASED = os.path.join(ROOT, "prototxt", "cifar10", "squeezenet", "released", "dhn-48")


def setup(folder: str, items: int, bits: int, distinct: int, quantile: float | None = None, asked: str = ""):
    """`seconds` are those that the share `quantile` of all queries by key takes at most, as wrk has them. Without it:
    what a query by a picture takes beyond a forward of the net that makes its code, the median of each.

    asked: the path of what is asked for instead of items by their keys.
    """
    path = nearest.index_of(folder, items, bits, distinct, None if quantile is not None else RELEASED)
    process = subprocess.Popen(
        [sys.executable, "-c", ENDING, os.path.join(ROOT, "tools", "serve.py"), path, "--port", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    port = int(re.search(rb":(\d+)/", process.stdout.readline())[1])
    sample = of_keys(folder, port, items, quantile, asked) if quantile is not None else of_pictures(port, folder)
    sample()
    return sample


def of_keys(folder: str, port: int, items: int, quantile: float, asked: str) -> Callable[[], dict[str, float]]:
    """Queries by key, of all clients at a time, each over a connection of its own: those of wrk."""
    script = os.path.join(folder, "queries.lua")
    with open(script, "w") as stream:
        stream.write(QUERIES % {"items": items, "top": TOP})
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}", "--latency", f"http://127.0.0.1:{port}{asked}"]
    if not asked:
        command += ["-s", script]

    def sample() -> dict[str, float]:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "Non-2xx" not in said and "Socket errors" not in said, said
        number, unit = re.search(rf"^ +{100 * quantile:.0f}% +([0-9.]+)(us|ms|s)$", said, re.MULTILINE).groups()
        return {"seconds": float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1}[unit]}

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


# keys in an order that jumps over the index
QUERIES = """
local item = 0
request = function()
  item = (item + 104729) %% %(items)d
  return wrk.format("GET", string.format("/api/search?key=%%08d&top=%(top)d", item))
end
"""

# the server's process ends with this one, however it ends: its standard input does
ENDING = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
