"""A small index with its net, and a server that answers from it over loopback."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import caffe
import cv2
import numpy as np
import uvicorn
from dhn.files import sha256
from dhn.search import build, places
from dhn.search.items import Items
from dhn.search.server import run
from dhn.search.server.limits import Limits

SIDE, NAMES, COUNT, BITS = 8, ["cat", "dog", "ship"], 60, 12

DEFAULTS = Limits()


def pixels(number: int) -> np.ndarray:
    """Image `number`, BGR (SIDE, SIDE, 3): noise, with the colour of its class."""
    noise = np.random.default_rng(number).integers(0, 60, (SIDE, SIDE, 3), np.uint8)
    noise[:, :, number % 3] += 190
    return noise


def encoded(image: np.ndarray, kind: str = ".png", *options: int) -> bytes:
    """An image as the bytes of a picture file."""
    return cv2.imencode(kind, image, options)[1].tobytes()


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict:
        return json.loads(self.body)


class Server:
    """A server that runs in a thread."""

    def __init__(self, port: int, served) -> None:
        self.port, self.served = port, served
        self.address = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request over a connection of its own. Underscores in the headers' names are dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def upload(
        self, picture: bytes, name: str = "q.png", options: dict[str, str] | None = None, **headers: str
    ) -> Answer:
        """Search by a picture, as a browser's form does."""
        body, kind = form(picture, name, options)
        return self.ask("POST", "/api/search", body, content_type=kind, **headers)


def form(picture: bytes, name: str = "q.png", options: dict[str, str] | None = None) -> tuple[bytes, str]:
    """The body of a form with the file field `image`, and its Content-Type."""
    parts = [f'name="{key}"\r\n\r\n{text}'.encode() for key, text in (options or {}).items()]
    parts.append(f'name="image"; filename="{name}"\r\ncontent-type: image/png\r\n\r\n'.encode() + picture)
    body = b"".join(b"--cut\r\ncontent-disposition: form-data; " + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    return body, "multipart/form-data; boundary=cut"


@contextlib.contextmanager
def serving(
    folder: Path, limits: Limits = DEFAULTS, names: tuple[str, ...] = (), small_buffers: bool = False
) -> Iterator[Server]:
    """A server of an index. small_buffers: the sockets' buffers hold little, so that a client that does not read is
    noticed soon."""
    with run.listen("127.0.0.1", 0) as listening:
        if small_buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        app = run.open_application(folder, names, limits)
        server = uvicorn.Server(run.configuration(app))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.005)
            yield Server(listening.getsockname()[1], app.state.served)
        finally:
            server.should_exit = True
            thread.join(20)


NET = f"""
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: {SIDE} dim: {SIDE} }} }} }}
layer {{ name: "hash" type: "InnerProduct" bottom: "data" top: "hash" inner_product_param {{ num_output: {BITS} }} }}
layer {{ name: "hash_layer" type: "TanH" bottom: "hash" top: "hash_layer" }}
"""


def write_index(
    root: Path,
    count: int = COUNT,
    about: Mapping[str, object] = MappingProxyType({}),
    named: Mapping[int, str] = MappingProxyType({}),
) -> Path:
    """An index of `count` small images with its pictures, and a net of random weights that made the codes.

    about: what index.json says otherwise or besides. named: paths of images that are called otherwise.
    """
    (root / "images").mkdir(parents=True)
    paths = [named.get(number, f"{NAMES[number % 3]}/{number}.png") for number in range(count)]
    for number, path in enumerate(paths):
        (root / "images" / path).parent.mkdir(exist_ok=True)
        (root / "images" / path).write_bytes(encoded(pixels(number)))
    (root / "deploy.prototxt").write_text(NET)
    net = caffe.Net(str(root / "deploy.prototxt"), caffe.TEST)
    net.params["hash"][0].data[...] = np.random.default_rng(0).normal(size=(BITS, 3 * SIDE * SIDE)) / 1000
    net.save(str(root / "w.caffemodel"))
    net.blobs["data"].reshape(count, 3, SIDE, SIDE)
    net.reshape()
    net.blobs["data"].data[...] = np.stack([pixels(number) for number in range(count)]).transpose(0, 3, 1, 2)
    codes = net.forward()["hash_layer"].copy()
    index = root / "index"
    files = {"model": root / "deploy.prototxt", "weights": root / "w.caffemodel"}
    made_by = {name: {**places.located(path, index), "sha256": sha256(path)} for name, path in files.items()}
    net_entry = {**made_by, "blob": "hash_layer", "prepared": {}, "size": None}
    facts = {"label_names": NAMES, "net": net_entry, **about}
    labels = np.eye(3, dtype=np.uint8)[np.arange(count) % 3]
    build.build(index, Items(codes, labels, paths, paths), facts, places.place("files", root / "images", index))
    return index
