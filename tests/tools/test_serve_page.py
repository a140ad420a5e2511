"""The page of a server of an index, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import search_server
from search_server import encoded, pixels

ROOT = Path(__file__).resolve().parents[2]
READY = "!document.querySelector('.busy') && [...document.images].every(each => each.complete)"
LOOK = """
Promise.all([...document.images].map(image => image.decode().then(() => image.naturalWidth, () => 0))).then(widths => ({
  widths, cards: document.querySelectorAll("#grid a").length, asked: location.search,
  wide: document.documentElement.scrollWidth, background: getComputedStyle(document.body).backgroundColor,
  heading: document.getElementById("heading").textContent, score: document.getElementById("score").textContent,
  query: document.getElementById("query").textContent,
  preview: document.querySelector("#preview img")?.naturalWidth ?? null,
  hits: document.querySelectorAll("#grid .hit").length, misses: document.querySelectorAll("#grid .miss").length,
  cells: document.querySelectorAll("#strip span").length, focus: document.activeElement.getAttribute("aria-label"),
  labels: [...document.querySelectorAll("#grid .line span:first-child")].map(each => each.textContent),
  drawn: document.querySelector("#grid img")?.width, blurred: document.querySelectorAll("#grid img:not(.small)").length,
  error: document.getElementById("error").hidden ? null : document.getElementById("error").textContent,
}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with search_server.serving(search_server.write_index(tmp_path_factory.mktemp("page"))) as server:
        yield server


def look(tab, heading: str) -> dict:
    """What is seen once the page has come to rest under this heading."""
    tab.wait(f"document.getElementById('heading').textContent === {json.dumps(heading)} && {READY}")
    return tab.evaluate(LOOK)


def click(tab, selector: str) -> None:
    """Click in the middle of an element, as a mouse does."""
    x, y = tab.evaluate(f"""(() => {{
        const element = document.querySelector({json.dumps(selector)});
        element.scrollIntoView({{ block: "center", behavior: "instant" }});
        const box = element.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def choose(tab, name: str, value: object) -> None:
    """Give an option of the form another value, as a user does."""
    field = f"document.getElementById('options').elements[{json.dumps(name)}]"
    tab.evaluate(
        f"{field}[{field}.type === 'checkbox' ? 'checked' : 'value'] = {json.dumps(value)};"
        f"{field}.dispatchEvent(new Event('change', {{bubbles: true}}))"
    )


def drop(tab, path: Path) -> None:
    """Drop a file on the page."""
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        tab.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)


def test_a_search_by_a_dropped_picture(chromium, server, tmp_path):
    path = tmp_path / "my dog.png"
    path.write_bytes(encoded(pixels(4)))
    with chromium.open(server.address + "/") as tab:
        start = look(tab, "Images of the index")
        assert start["widths"] == [8] * 24 and start["cards"] == 24 and start["preview"] is None
        drop(tab, path)
        found = look(tab, "20 nearest")
        assert found["widths"] == [8] * 21 and found["cards"] == 20 and found["preview"] == 8
        assert found["query"] == "Query my dog.png" and found["asked"].startswith("?code=")
        assert found["hits"] == found["misses"] == found["cells"] == 0, "nobody knows the label of this picture"
        assert found["drawn"] == 128 and found["blurred"] == 0

        click(tab, "#grid li:nth-child(2) a")
        clicked = look(tab, "20 nearest")
        tab.wait("document.querySelector('#grid .mark').textContent === 'query'")
        clicked = tab.evaluate(LOOK)
        assert clicked["widths"] == [8] * 21 and clicked["asked"].startswith("?key=")
        assert clicked["hits"] + clicked["misses"] == clicked["cells"] == 19 and clicked["hits"] > 0
        assert f"{clicked['hits']} of 19 right: precision@19 {clicked['hits'] / 19:.3f}" in clicked["score"]

        tab.evaluate("history.back()")
        tab.wait("document.getElementById('query').textContent === 'Query my dog.png'")
        back = look(tab, "20 nearest")
        assert back == found | {"focus": back["focus"]}, "the same results and the picture that was dropped"
        tab.evaluate("history.back()")
        again = look(tab, "Images of the index")
        assert again == start | {"focus": again["focus"]}
        tab.evaluate("history.go(2)")
        tab.wait(f"location.search === {json.dumps(clicked['asked'])}")
        tab.wait("document.querySelectorAll('#grid .hit').length > 0")
        assert tab.errors() == []
        assert [each for each in tab.asked() if not each.startswith((server.address, "data:"))] == []


def test_options_are_states_of_the_address(chromium, server):
    with chromium.open(f"{server.address}/?key=dog%2F4.png&top=30") as tab:
        assert look(tab, "30 nearest")["cards"] == 30
        choose(tab, "label", "dog")
        found = look(tab, "20 nearest")
        assert set(found["labels"]) == {"dog"} and found["misses"] == 0
        choose(tab, "top", "3")
        found = look(tab, "3 nearest")
        choose(tab, "unique", True)
        tab.wait("location.search.includes('unique=1')")
        choose(tab, "radius", "0")
        tab.wait("location.search.includes('radius=0')")
        address = "?key=dog%2F4.png&top=3&label=dog&unique=1&radius=0"
        count = len(server.get(f"/api/search{address}").json["results"])
        assert look(tab, f"{count} nearest")["asked"] == address
        links = tab.evaluate("[...document.querySelectorAll('#tools a')].map(each => each.getAttribute('href'))")
        for link, start in zip(links, (b"query,rank,", b'{"query":{"key":"dog/4.png"'), strict=False):
            assert server.get(link).body.startswith(start)
        choose(tab, "label", "cat")
        assert look(tab, "Nothing found")["cards"] == 0
        tab.evaluate("history.go(-4)")
        tab.wait("location.search === '?key=dog%2F4.png&top=30&label=dog'")
        assert look(tab, "20 nearest")["labels"] == ["dog"] * 20
        assert tab.evaluate("[...document.querySelector('form').elements].map(each => each.value).slice(0, 3)") == [
            "30",
            "",
            "dog",
        ]
        choose(tab, "key", "ship/5.png")
        tab.wait("document.getElementById('query').textContent === 'Query ship/5.png (ship)'")
        assert tab.errors() == []


def test_the_keyboard_alone(chromium, server):
    with chromium.open(server.address + "/") as tab:
        look(tab, "Images of the index")
        for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
            tab.press(key)
        columns = tab.evaluate(
            "getComputedStyle(document.getElementById('grid')).gridTemplateColumns.split(' ').length"
        )
        places = "[...document.querySelectorAll('#grid a')].indexOf(document.activeElement)"
        assert tab.evaluate(places) == columns
        assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
        tab.press("Enter")
        look(tab, "20 nearest")
        assert tab.evaluate("document.activeElement.id") == "results"
        tab.press("/")
        assert tab.evaluate("document.activeElement.name") == "key"
        assert tab.evaluate("[...document.querySelectorAll('input, select')].every(each => each.labels.length === 1)")
        assert tab.evaluate("[...document.querySelectorAll('a, button')].every(each => each.textContent.trim())")
        assert tab.errors() == []


def test_a_pasted_picture_and_one_that_is_refused(chromium, server, tmp_path):
    with chromium.open(server.address + "/") as tab:
        look(tab, "Images of the index")
        tab.evaluate(
            f"(() => {{ const data = new DataTransfer(); const bytes = new Uint8Array({list(encoded(pixels(5)))});"
            "data.items.add(new File([bytes], 'image.png', {type: 'image/png'}));"
            "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data})) })()"
        )
        found = look(tab, "20 nearest")
        assert found["query"] == "Query image.png" and found["preview"] == 8
        tab.call("Page.reload")
        tab.wait("document.querySelector('#preview img')")
        assert look(tab, "20 nearest") == found, "the address is enough"
        assert tab.errors() == []
        path = tmp_path / "drawing.png"
        path.write_bytes(b"<svg/>")
        drop(tab, path)
        tab.wait("!document.getElementById('error').hidden")
        refused = tab.evaluate(LOOK)
        assert refused["error"].startswith("image: expected a JPEG, PNG or WebP picture") and refused["cards"] == 20


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_a_phone_and_the_dark(chromium, server, width, dark):
    with chromium.open(f"{server.address}/?key=dog%2F4.png", width, dark) as tab:
        found = look(tab, "20 nearest")
        assert found["wide"] <= width and found["widths"] == [8] * 21
        assert (found["background"] == "rgb(255, 255, 255)") == (not dark)
        assert found["drawn"] == (96 if width < 500 else 128)
        assert tab.errors() == []
