"""The index of a running server changes: it grows, its folder is replaced, it is damaged, a process is killed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import search_server
import serve
from dhn.files import sha256
from dhn.search.index import open_index
from dhn.search.server import run
from dhn.search.server.connection import Connection
from dhn.search.server.limits import Limits
from search_server import encoded, pixels

ROOT = Path(__file__).resolve().parents[2]


APPEND = """
import sys, numpy
from dhn.search import build
from dhn.search.items import Items
for number in range(10**6):
    labels = numpy.zeros((1, 3), numpy.uint8)
    build.append(sys.argv[1], Items(numpy.ones((1, 12), numpy.float32), labels, [f"new {number}"]))
    print(number, flush=True)
"""


def test_killed_while_the_index_grows(tmp_path):
    index = search_server.write_index(tmp_path)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "GLOG_minloglevel": "2"}
    command = [sys.executable, str(ROOT / "tools" / "serve.py"), str(index), "--port", "0"]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server,
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(index)], stdout=subprocess.PIPE, text=True, env=environment
        ) as writer,
    ):
        try:
            address = re.match(r"http://127\.0\.0\.1:\d+/", server.stdout.readline())[0]
            assert int(writer.stdout.readline()) == 0
            while json.load(urllib.request.urlopen(f"{address}healthz"))["images"] <= search_server.COUNT:
                time.sleep(0.05)  # until it notices what was appended
            server.kill()
            appended = max(int(writer.stdout.readline()) for _ in range(3)) + 1
        finally:
            server.kill()
            writer.kill()
    assert server.wait() == writer.wait() == -signal.SIGKILL
    opened = open_index(index, verify=True)
    assert len(opened) >= search_server.COUNT + appended
    with search_server.serving(index) as again:
        assert again.get("/healthz").json["images"] == len(opened)
        assert again.get("/api/search?key=new+0").json["results"][0]["distance"] == 0


def test_the_folder_is_replaced_under_a_running_server(tmp_path):
    index, other = (search_server.write_index(tmp_path / name, count) for name, count in (("a", 30), ("b", 45)))
    damaged, netless = tmp_path / "damaged", tmp_path / "netless"
    shutil.copytree(other, damaged)
    flip_a_byte(damaged)
    shutil.copytree(other, netless)
    damage_the_net(netless)
    with search_server.serving(index, Limits(look_seconds=0.02)) as server, ThreadPoolExecutor(4) as pool:
        ended = threading.Event()

        def ask() -> set[int]:
            statuses = set()
            while not ended.is_set():
                statuses.add(server.get("/api/search?key=cat%2F0.png").status)
                statuses.add(server.get("/api/items/cat%2F0.png/image").status)
            return statuses

        def until(images: int, problem: bool) -> None:
            end = time.monotonic() + 20
            while True:
                health = server.get("/healthz").json
                if (health["images"], health["problem"] is not None) == (images, problem):
                    return
                assert time.monotonic() < end, health
                time.sleep(0.01)

        asking = [pool.submit(ask) for _ in range(4)]
        try:
            changes = (damaged, 30, True), (netless, 30, True), (other, 45, False)
            for place, (new, images, problem) in enumerate(changes):
                index.rename(tmp_path / f"old {place}")
                time.sleep(0.05)  # there is no index at all
                new.rename(index)
                until(images, problem)
            shutil.rmtree(tmp_path / "old 0")
            assert server.upload(encoded(pixels(0))).json["results"][0]["distance"] == 0
        finally:
            ended.set()
        assert {status for each in asking for status in each.result()} == {200}


def test_several_workers_can_be_started(tmp_path):
    """uvicorn starts a worker by pickling how to open the application; the worker then opens the index itself."""
    index = search_server.write_index(tmp_path)
    configuration = run.configuration(partial(run.open_application, index, verify=False), factory=True, workers=2)
    copy = pickle.loads(pickle.dumps(configuration))
    copy.load()
    assert copy.http_protocol_class is Connection and copy.loaded_app.state.limits == Limits()
    copy.loaded_app.state.served.close()


def flip_a_byte(index: Path) -> None:
    """Damage the distinct codes of an index; its files keep their sizes."""
    path = index / json.loads((index / "index.json").read_text())["generation"] / "words.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_the_net(index: Path) -> None:
    """The net of an index becomes one whose data are not there; its digest is right."""
    about = json.loads((index / "index.json").read_text())
    model = index / "no_net.prototxt"
    model.write_text(
        'layer { name: "in" type: "Python" top: "data" top: "label" python_param { module: "multilabel_data" '
        'layer: "MultiLabelDataLayer" param_str: \'{"source": "nowhere", "batch_size": 2}\' } }'
    )
    about["net"]["model"] |= {"path": str(model), "relative": model.name, "sha256": sha256(model)}
    (index / "index.json").write_text(json.dumps(about))


def test_a_damaged_index_is_not_served(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(serve, "limit_libraries", lambda: None)
    index = search_server.write_index(tmp_path)
    flip_a_byte(index)
    capsys.readouterr()  # the log of the net
    assert serve.main([str(index), "--port", "0"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("serve: ") and "words.npy" in said.err and said.err.count("\n") == 1
    shutil.rmtree(index)
    assert serve.main([str(index), "--port", "0"]) == 1
    assert capsys.readouterr().err.startswith(f"serve: {index}: expected the folder of an index, found nothing")


def test_an_answer_does_not_wait_for_an_acknowledgement_of_its_header():
    with run.listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
