"""The pages (*.md): what they link to and name is there, and CONTRIBUTING's recipes work as they are written."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path
from types import ModuleType

import caffe
import cv2
import image_lists
import net
import numpy as np
import pytest
from caffe import layer
from caffe.proto import caffe_pb2, text
from dhn.datasets import prepare, recipes
from dhn.scoring import retrieval

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = {".venv", ".reference", ".git", ".pytest_cache", ".ruff_cache", "runs", "weights", "node_modules"}
LONGEST_README = 120  # lines
SUFFIXES = "py|md|c|proto|desc|json|png|toml|prototxt|sh"
PLACES = ("tools", "engine", "prototxt", "python_layers", "tests", "docs", "data")  # whose paths a page may name
# Paths that a page names and that a user or a run makes.
MADE = re.compile(r"data/(<dataset>|birds|\w+/(images\.json|split\.json|label_names\.txt)$)|prototxt/<dataset>")


def pages() -> list[Path]:
    """The repository's pages: those in git, or where there is no git all of its folders."""
    command = ["git", "ls-files", "-z", "--", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    paths = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        paths += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(paths)


PAGES = pages()
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    body = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?:    .+\n)+", "", body)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead nowhere: no such file, or no such heading in it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def absent_files(page: Path) -> list[str]:
    """The paths in backquotes that begin in one of PLACES, or name a file next to the page's own, and are not there."""
    absent = []
    for name in " ".join(re.findall(r"`([^`]+)`", prose(page))).split():
        is_path = re.fullmatch(rf"[\w.-]+(/[\w.-]+)*/([\w.-]+\.({SUFFIXES}))?", name)
        if is_path and name.split("/")[0] in PLACES and not MADE.match(name):
            absent += [name] * (not (ROOT / name).exists() and not (page.parent / name).exists())
    return absent


def test_there_are_pages():
    folders = {str(page.parent.relative_to(ROOT)) for page in PAGES}
    assert {".", "tools", "prototxt", "python_layers", "engine", "tests", "tests/bench", "tests/conformance"} <= folders


@every_page
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


@every_page
def test_files_that_a_page_names_are_there(page):
    assert absent_files(page) == []


def test_a_broken_link_and_an_absent_file_are_reported(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One title: `code`\n[a](page.md#one-title-code) [b](#no) [c](none.md) [d](https://example.org/x)\n"
        "`tools/none.py`, `tools/score_map.py`, `engine/none/`, `tests/`, `runs/x/y.json`\n\n```\n[e](none)\n```\n"
    )
    assert broken_links(page) == ["#no", "none.md"]
    assert absent_files(page) == ["tools/none.py", "engine/none/"]


def test_readme_is_one_screen_and_has_the_map():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= LONGEST_README
    for folder in ("prototxt", "python_layers", "tools", "data", "engine", "tests"):
        assert re.search(rf"^\| \[{folder}/", readme, re.MULTILINE), f"README's table of folders has no {folder}/"


def rows(page: str, heading: str) -> list[str]:
    """The first cells of the tables below a heading, of those written in backquotes."""
    section = (ROOT / page).read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w.-]+)`", section.split("|---", 1)[1], re.MULTILINE)


def test_the_table_of_protocols_is_complete():
    assert rows("tools/README.md", "## Protocols") == list(retrieval.PROTOCOLS)


def test_the_table_of_commands_is_complete():
    assert sorted(rows("tools/README.md", "## Commands")) == sorted(path.name for path in ROOT.glob("tools/*.py"))


def test_the_table_of_variants_is_complete():
    assert rows("prototxt/README.md", "## Variants") == [*net.VARIANTS, net.PRETRAINING]


# -- CONTRIBUTING's recipes, followed


def block(heading: str) -> str:
    """The first block of code below a heading of CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"^```\w+\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[1]


def module(folder: Path, source: str) -> ModuleType:
    """A module of this source."""
    path = folder / "written_as_told.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_adding_a_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(layer, "_registry", {name: layer._registry[name] for name in layer.layer_type_list()})
    module(tmp_path, block("Add a layer"))
    source = """force_backward: true
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "y" type: "Softsign" bottom: "x" top: "y" }"""
    one = caffe.Net(text.parse(source, caffe_pb2.NetParameter()), caffe.TRAIN)
    x = np.linspace(-3, 2, 6, dtype=np.float32).reshape(2, 3)
    one.blobs["x"].data[...] = x
    np.testing.assert_allclose(one.forward()["y"], x / (1 + np.abs(x)), rtol=1e-6)
    one.blobs["y"].diff[...] = 2
    one.backward()
    np.testing.assert_allclose(one.blobs["x"].diff, 2 / (1 + np.abs(x)) ** 2, rtol=1e-5)


def test_adding_a_protocol(tmp_path, monkeypatch):
    source = f"from dhn.scoring.retrieval import Protocol\n\nADDED = {{\n{block('Add a protocol')}}}\n"
    ((name, rules),) = module(tmp_path, source).ADDED.items()
    monkeypatch.setitem(retrieval.PROTOCOLS, name, rules)
    database = np.array([[1, 1, 1, 1], [1, 1, 1, -1], [1, 1, -1, -1]], np.float32)
    labels, queries = np.array([[1, 0], [0, 1], [1, 0]]), np.array([[1, 0], [0, 0]])
    found = retrieval.score(database[[0, 0]], queries, database, labels, name)
    # the first query's hits are at ranks 1 and 3; the second has none and counts as 0
    assert found["protocol"] == name and found["map"] == pytest.approx((1 / 1 + 2 / 3) / 2 / 2)


def test_adding_a_data_set(tmp_path):
    for number, kind in enumerate(("robin", "wren")):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for index in range(8):
            picture = np.full((8, 8, 3), 100 * number + index, np.uint8)
            cv2.imwrite(str(tmp_path / "photos" / kind / f"{index}.png"), picture)
    (tmp_path / "birds.json").write_text(block("Add a data set"))
    out = tmp_path / "data" / "birds"
    facts = prepare.prepare(recipes.read(tmp_path / "birds.json"), out)
    assert facts["counts"] == {"query": 4, "train": 6, "database": 6} and facts["label_names"] == ["robin", "wren"]
    assert len(image_lists.read(out / "query.txt")[0]) == 4
    assert json.loads((out / "split.json").read_text())["split"] == "mine"
    assert all((out / f"{name}_lmdb" / "data.mdb").exists() for name in facts["counts"])


def test_adding_a_variant(tmp_path, monkeypatch):
    ((name, objective),) = module(tmp_path, f"ADDED = {{\n{block('Add a variant')}}}\n").ADDED.items()
    assert name not in net.VARIANTS
    monkeypatch.setitem(net.VARIANTS, name, objective)
    files = net.texts("fashion_mnist", name, 8, str(tmp_path))
    assert 'layer: "SquaredSimilarityLossLayer"' in files["train_val.prototxt"]
    assert "QuantizationLossLayer" not in files["train_val.prototxt"] and f"/{name}" in files["solver.prototxt"]
