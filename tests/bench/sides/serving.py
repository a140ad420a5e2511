"""A sample: queries by key that several clients send to `tools/serve.py`, each over one connection of its own."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time

import nearest

CLIENTS, QUERIES, TOP = 8, 100, 20  # queries of each client


def setup(folder: str, items: int, bits: int, distinct: int, quantile: float):
    """`seconds` are those of the query that this share of all queries is not slower than. The clients are threads of
    one process: what they take is in it."""
    path = nearest.index_of(folder, items, bits, distinct)
    server = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "tools", "serve.py")
    process = subprocess.Popen(
        [sys.executable, "-c", ENDING, server, path, "--port", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    port = int(re.search(rb":(\d+)/", process.stdout.readline())[1])

    def ask(client: int, seconds: list[float]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for query in range(QUERIES):
            key = f"{(client * 7919 + query * 104729) % items:08d}"
            start = time.perf_counter()
            connection.request("GET", f"/api/search?key={key}&top={TOP}")
            answer = connection.getresponse()
            answer.read()
            seconds.append(time.perf_counter() - start)
            assert answer.status == 200, answer.status
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

    sample()
    return sample


# the server's process ends with this one, however it ends: its standard input does
ENDING = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
