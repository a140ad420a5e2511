"""The API of a server of an index: its answers are the index's, and what /openapi.json says of them is so."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from urllib.parse import quote, urlencode

import cv2
import numpy as np
import openapi_spec_validator
import pytest
import search as search_command
import search_server
from dhn.search.index import open_index
from dhn.search.server import app
from dhn.search.server.limits import Limits
from jsonschema import Draft202012Validator
from search_server import encoded, pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return search_server.write_index(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(folder):
    with search_server.serving(folder) as server:
        yield server


@pytest.fixture(scope="module")
def description(server):
    return server.get("/openapi.json").json


def printed(folder, capsys, *options: str) -> dict:
    """What the command prints for a query."""
    assert search_command.main([str(folder), *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


OPTIONS = [
    {},
    {"top": "5"},
    {"radius": "4"},
    {"label": "dog", "top": "7"},
    {"top": "9", "unique": "1"},
    {"radius": "0", "label": "ship"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_answer_is_what_the_command_prints(folder, server, options, capsys):
    words = [
        word for name, text in options.items() for word in ([f"--{name}"] if name == "unique" else [f"--{name}", text])
    ]
    answer = server.get(f"/api/search?{urlencode({'key': 'dog/4.png'} | options)}").json
    assert answer["query"].pop("labels") == ["dog"]
    assert answer == printed(folder, capsys, "--key", "dog/4.png", *words)


def test_a_picture_is_asked_as_the_command_asks_it(folder, server, tmp_path, capsys):
    path = tmp_path / "q.png"
    path.write_bytes(encoded(pixels(4)))
    answer = server.upload(path.read_bytes(), str(path), {"top": "3", "label": "dog"}).json
    code = answer["query"].pop("code")
    assert answer == printed(folder, capsys, "--image", str(path), "--top", "3", "--label", "dog")
    index = open_index(folder)
    np.testing.assert_allclose(code, index.codes[index.row_of("dog/4.png")], atol=1e-6)
    by_code = server.ask(
        "POST", "/api/search", json.dumps({"code": code, "top": 3, "label": "dog"}), content_type="application/json"
    )
    in_address = server.get(f"/api/search?top=3&label=dog&code={','.join(map(str, code))}")
    assert by_code.json["results"] == in_address.json["results"] == answer["results"]
    assert by_code.json["query"]["code"] == code, "nothing is lost on the way"


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp"])
def test_the_kinds_of_pictures(server, kind):
    picture = cv2.resize(pixels(1), (40, 24), interpolation=cv2.INTER_NEAREST)
    answer = server.upload(encoded(picture, kind), f"q{kind}")
    assert answer.status == 200 and len(answer.json["results"]) == 20


def test_csv(server):
    answer = server.get("/api/search?key=cat%2F0.png&top=4&format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8" and len(rows) == 4
    results = server.get("/api/search?key=cat%2F0.png&top=4").json["results"]
    assert [(row["key"], row["labels"]) for row in rows] == [(each["key"], each["labels"][0]) for each in results]


def test_items_and_their_pictures(folder, server):
    index = open_index(folder)
    first, again, other = (server.get(f"/api/items?count=10&seed={seed}").json["items"] for seed in (1, 1, 2))
    assert first == again != other and len({item["key"] for item in first}) == 10
    dogs = server.get("/api/items?count=1000&label=dog").json["items"]
    assert sorted(item["row"] for item in dogs) == [row for row in range(len(index)) if row % 3 == 1]
    for item in first[:3]:
        row = index.row_of(item["key"])
        assert item == {
            "row": row,
            "key": index.keys_of([row])[0],
            "labels": list(index.labels_of(row)),
            "path": index.path_of(row),
        }
        answer = server.get(f"/api/items/{quote(item['key'], safe='')}/image")
        assert (answer.body, answer.headers["content-type"]) == index.picture(row)
        assert server.get(f"/api/items/{item['key']}/image").body == answer.body, "a slash need not be encoded"


def test_names_of_files_that_are_not_utf_8(tmp_path):
    names = {0: os.fsdecode(b"cat/caf\xe9.png"), 1: "dog/\uf7e9.png"}  # the second has such a character of its own
    label = os.fsdecode(b"\xe9")
    folder = search_server.write_index(tmp_path, 3, {"label_names": ["cat", label, "ship"]}, names)
    with search_server.serving(folder) as server:
        items = {item["row"]: item for item in server.get("/api/items").json["items"]}
        assert items[0]["key"] == items[0]["path"] == "cat/caf\uf7e9.png" and items[1]["key"] == names[1]
        assert items[1]["labels"] == ["\uf7e9"] and server.get("/api/about").json["label_names"][1] == "\uf7e9"
        for row in (0, 1):
            answer = server.get(f"/api/items/{quote(items[row]['key'])}/image")
            assert np.array_equal(cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR), pixels(row))
            asked = f"/api/search?{urlencode({'key': items[row]['key'], 'top': 3})}"
            assert {result["key"] for result in server.get(asked).json["results"]} == {i["key"] for i in items.values()}
            assert os.fsencode(names[row]) in server.get(f"{asked}&format=csv").body
        found = server.get(f"/api/search?{urlencode({'key': items[0]['key'], 'label': items[1]['labels'][0]})}")
        assert [result["row"] for result in found.json["results"]] == [1]


def test_a_picture_of_another_kind_is_sent_as_png(tmp_path):
    folder = search_server.write_index(tmp_path)
    (tmp_path / "images" / "cat" / "0.png").write_bytes(encoded(pixels(0), ".bmp"))
    (tmp_path / "images" / "dog" / "1.png").write_bytes(b"<svg onload='alert(1)'/>")
    (tmp_path / "images" / "ship" / "2.png").unlink()
    with search_server.serving(folder) as server:
        answer = server.get("/api/items/cat%2F0.png/image")
        assert answer.headers["content-type"] == "image/png"
        assert np.array_equal(cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR), pixels(0))
        for key in ("dog%2F1.png", "ship%2F2.png"):
            answer = server.get(f"/api/items/{key}/image")
            assert answer.status == 404 and str(tmp_path) not in answer.body.decode()


def test_about_and_report(tmp_path):
    score = {
        "protocol": "standard",
        "R": 60,
        "map": 0.5,
        "map_expected": 0.51,
        "map_low": 0.4,
        "map_high": 0.6,
        "caveats": ["of noise"],
    }
    (tmp_path / "report.html").write_text("<style>p {}</style>scores")
    about = {"dataset": "cifar10", "split": {"split": "paper", "form": "JPEG copies"}, "score": score}
    folder = search_server.write_index(
        tmp_path, about=about | {"report": {"path": "gone", "relative": "../report.html"}}
    )
    with search_server.serving(folder) as server:
        facts = server.get("/api/about").json
        report = server.get("/report")
    assert (facts["dataset"], facts["form"], facts["split"], facts["run"]) == (
        "CIFAR-10",
        "JPEG copies",
        "paper",
        tmp_path.name,
    )
    assert facts["score"] == score and facts["encoder"] and facts["pictures"] and facts["report"]
    assert report.body == b"<style>p {}</style>scores" and report.headers["content-security-policy"].startswith(
        "default-src 'none'; img-src data:;"
    )


def test_an_index_of_codes_alone(tmp_path):
    folder = search_server.write_index(tmp_path, about={"net": None, "label_names": None})
    with search_server.serving(folder) as server:
        assert server.get("/api/about").json["encoder"] is False and server.get("/report").status == 404
        answer = server.upload(encoded(pixels(0)))
        assert answer.status == 409 and answer.json["error"].startswith("this index names no net")
        assert server.get("/api/search?key=cat%2F0.png&label=1").json["results"][0]["labels"] == ["1"]


BAD = {
    "/api/search": "either key or code", "/api/search?key=a&code=1": "either key or code",
    "/api/search?key=a&key=b": "once",
    "/api/search?key=cat%2F0.png&top=0": "top '0': expected a whole number from 1 to 1000",
    "/api/search?key=cat%2F0.png&top=1001": "top", "/api/search?key=cat%2F0.png&top=%D9%A1": "top",
    "/api/search?key=cat%2F0.png&radius=13": "radius '13': expected a whole number from 0 to 12",
    "/api/search?key=cat%2F0.png&radius=-1": "radius", "/api/search?key=cat%2F0.png&radius=1e1": "radius",
    "/api/search?key=cat%2F0.png&label=bird": "label 'bird': expected one of the index: cat, dog, ship",
    "/api/search?key=cat%2F0.png&unique=yes": "unique", "/api/search?key=cat%2F0.png&format=xml": "format",
    "/api/search?key=cat%2F0.png&tpo=3": "parameter 'tpo' is unknown",
    "/api/search?code=1,2": "code: expected 12 numbers", "/api/search?code=nan,1,1,1,1,1,1,1,1,1,1,1": "finite",
    "/api/search?code=x,1,1,1,1,1,1,1,1,1,1,1": "expected numbers", "/api/items?count=0": "count",
    "/api/items?seed=-1": "seed", "/api/items?label=bird": "label", "/api/items?from=1": "from",
}  # fmt: skip


@pytest.mark.parametrize(("path", "sentence"), BAD.items(), ids=BAD)
def test_a_request_that_makes_no_sense(server, path, sentence):
    answer = server.get(path)
    assert answer.status == 400 and sentence in answer.json["error"]


def test_a_key_that_is_not_there(server):
    for path in ("/api/search?key=cat%2F1.png", "/api/items/cat%2F1.png/image"):
        answer = server.get(path)
        assert answer.status == 404
        assert answer.json["error"] == "key 'cat/1.png': expected the key of an image of the index"


def test_the_description_is_one(description):
    openapi_spec_validator.validate(description)
    operations = {(path, method.upper()) for path, methods in description["paths"].items() for method in methods}
    routes = app.application(None, Limits()).routes
    served = {(re.sub(":path", "", route.path), method) for route in routes for method in route.methods}
    pages = {(path, "GET") for path in (*app.FILES, "/openapi.json", "/report")}
    assert {each for each in served if each[1] != "HEAD"} == operations | pages


REQUESTS = [
    ("GET", "/api/search", "?key=cat%2F0.png&radius=3&label=cat&unique=1", 200),
    ("GET", "/api/search", "?key=none", 404),
    ("GET", "/api/search", "?code=0.5,1,1,1,1,1,1,1,1,1,1,-1", 200), ("GET", "/api/search", "?top=x", 400),
    ("GET", "/api/items", "?label=dog", 200), ("GET", "/api/items", "?count=x", 400), ("GET", "/api/about", "", 200),
    ("GET", "/healthz", "", 200), ("GET", "/api/items/{key}/image", "", 404),
]  # fmt: skip


def check(description: dict, method: str, path: str, answer) -> None:
    """An answer is one that the description has for this operation: its status, its type, its schema."""
    response = description["paths"][path][method.lower()]["responses"][str(answer.status)]
    content = response["content"][answer.headers["content-type"]]
    Draft202012Validator(content["schema"] | {"components": description["components"]}).validate(answer.json)


@pytest.mark.parametrize(("method", "path", "query", "status"), REQUESTS)
def test_answers_are_as_described(server, description, method, path, query, status):
    answer = server.ask(method, path + query)
    assert answer.status == status
    check(description, method, path, answer)


def test_answers_to_uploads_are_as_described(server, description):
    jpeg = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), ".jpg")
    small = encoded(pixels(0)[:5])  # for the net of an index whose pictures were not resized
    for picture, status in ((encoded(pixels(0)), 200), (b"GIF89a", 415), (jpeg[:-900], 422), (small, 422)):
        answer = server.upload(picture)
        assert answer.status == status
        check(description, "POST", "/api/search", answer)
    answer = server.upload(encoded(pixels(0)), origin="http://evil.example")
    assert answer.status == 403
    check(description, "POST", "/api/search", answer)


def test_what_is_described_is_accepted(server, description):
    """Each parameter of each operation, at the ends of its range."""
    asked = 0
    for path, methods in description["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            schema = parameter["schema"]
            values = schema.get("enum", [schema.get("minimum"), schema.get("maximum"), schema.get("default")])
            for value in [each for each in values if each is not None]:
                key = {"key": "cat/0.png"} if path == "/api/search" else {}
                assert server.get(f"{path}?{urlencode(key | {parameter['name']: value})}").status == 200
                asked += 1
    assert asked >= 15
