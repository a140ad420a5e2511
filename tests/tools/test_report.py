"""report.html of a small run: what it says, and that a real browser shows it."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import report as report_command
from caffe.proto import caffe_pb2
from dhn.codes import files as codes
from dhn.datasets import lmdb_build
from dhn.datasets.labelled_images import from_arrays
from dhn.experiments.metrics import score_files, write_metrics
from dhn.files import write_json
from dhn.pages import report
from dhn.runs.folder import Run, RunError

BITS, CLASSES, COUNTS = 8, 10, {"train": 20, "query": 30, "database": 200}
HEAD = "I1124 03:48:02.483288 32346 "
LOG = f"""
{HEAD}solver.cpp:347] Iteration 0, Testing net (#0)
{HEAD}solver.cpp:414]     Test net output #0: pairwise_loss = 0.75 (* 1 = 0.75 loss)
{HEAD}solver.cpp:239] Iteration 0 (0 iter/s, 3.7s/50 iters), loss = 1.25
{HEAD}solver.cpp:258]     Train net output #0: pairwise_loss = 0.5 (* 1 = 0.5 loss)
{HEAD}sgd_solver.cpp:112] Iteration 0, lr = 0.003
{HEAD}solver.cpp:239] Iteration 50 (4.8 iter/s, 10.3s/50 iters), loss = 0.5
{HEAD}sgd_solver.cpp:112] Iteration 50, lr = 0.0009
"""
NET = """
name: "small <net>"
layer {{ name: "data" type: "{data}" top: "data" }}
layer {{ name: "hash_layer" type: "InnerProduct" bottom: "data" top: "hash_layer" }}
{loss}
"""
LOSS = 'layer { name: "pairwise_loss" type: "Python" bottom: "hash_layer" top: "pairwise_loss" loss_weight: 1.5 }'


def make(root: Path, dataset: str = "fashion_mnist", variant: str = "dhn", colour: bool = False) -> Run:
    """A scored run in a temporary folder, of images that are noise and codes that follow the labels loosely."""
    run, random = Run(dataset, variant, BITS, root), np.random.RandomState(0)
    run.folder.mkdir(parents=True)
    run.data.mkdir(parents=True)
    for side, count in COUNTS.items():
        labels = np.eye(CLASSES, dtype=np.uint8)[np.arange(count) % CLASSES]
        images = random.randint(0, 256, (count, 90, 120, 3) if colour else (count, 28, 28)).astype(np.uint8)
        np.savez(root / f"{side}.npz", images=images, labels=labels)
        lmdb_build.build(from_arrays(root / f"{side}.npz"), run.data / f"{side}_lmdb")
        centres = np.random.RandomState(1).randn(CLASSES, BITS)
        if side != "train":
            values = np.tanh(centres[labels.argmax(1)] + random.randn(count, BITS))
            codes.save(run.folder / f"{side}.npz", values, labels)
    (run.data / "label_names.txt").write_text("".join(f"<kind {label}>\n" for label in range(CLASSES)))
    (run.folder / "solver.prototxt").write_text(
        f'max_iter: 100 base_lr: 0.003 lr_policy: "step" gamma: 0.3 stepvalue: 4 stepvalue: 8 random_seed: 3\n'
        f'snapshot_prefix: "{run.folder.relative_to(root)}/{variant}"'
    )
    (run.folder / "train_val.prototxt").write_text(NET.format(data="DummyData", loss=LOSS))
    (run.folder / "deploy.prototxt").write_text(NET.format(data="Input", loss=""))
    run.log.write_text(LOG)
    layer = caffe_pb2.LayerParameter(name="hash_layer", type="InnerProduct")
    layer.blobs.add(data=[0.5] * 24).shape.dim.extend([8, 3])
    run.weights().write_bytes(caffe_pb2.NetParameter(layer=[layer]).SerializeToString())
    write_json(
        run.folder / "training.json", {"recipe": "abc", "iterations": 100, "resumed_at": [50], "seconds_per_step": 1.5}
    )
    files = [str(run.folder / f"{side}.npz") for side in ("query", "database")]
    names = ["dhn-caffe"] if variant == "dhn_b" else ["standard", "hashnet"]
    write_metrics(run.folder / "metrics.json", score_files(*files, names), weights=run.weights(), dataset=dataset)
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run with its report."""
    run = make(tmp_path_factory.mktemp("run"))
    assert report.write(run) == run.folder / "report.html"
    return run


@pytest.fixture(scope="module")
def page(run) -> str:
    return (run.folder / "report.html").read_text()


def test_the_page_says_what_was_run(run, page):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    text = html.unescape(re.sub(r"<svg.*?</svg>|<[^>]*>", " ", page.split("</style>")[1], flags=re.S))
    words = " ".join(text.split())
    for expected in (
        "DHN on Fashion-MNIST, 8 bits",
        "30 query images against a database of 200; trained on 20 images for 100 iterations",
        "small <net>: hash_layer",
        "pairwise_loss, weight 1.5",
        "base_lr 0.003, max_iter 100, lr_policy step, gamma 0.3",
        "stepvalue 4, 8",
        metrics["weights_sha256"],
        "dhn_iter_100.caffemodel",
        "24 values in 1 layers",
        "snapshot of iteration 50",
        "20 train, 30 query, 200 database",
        f"numpy {np.__version__}",
        "2.5 minutes in all",
        'name: "small <net>"',
    ):
        assert expected in words, expected
    for found in metrics["protocols"].values():
        for key in ("map", "map_expected", "map_low", "map_high"):
            assert f"{found[key]:.4f}" in words


def test_the_page_needs_nothing_else(page):
    assert not re.search(r"(?:src|href)=\"(?!data:)(?!#)[^\"]*\"", page.replace("xlink:href", "href"))
    assert "url(http" not in page and "@import" not in page and "<script" not in page
    assert page.count("<svg") == page.count("</svg>") == 7
    assert not re.search(r"#0102[0-9a-f]{2}", page), "every colour of a drawing follows the page's"
    assert page.count("var(--") > 100


def test_the_gallery_frames_hits_and_misses(run, page):
    query, labels = codes.load(run.folder / "query.npz")
    database, theirs = codes.load(run.folder / "database.npz")
    rows = re.findall(r'<div class="query">(.*?)</div>', page, flags=re.S)
    assert len(rows) == 20
    hits = 0
    for row in rows:
        name = html.unescape(re.search(r'alt="query: ([^"]*)"', row)[1])
        place = int(re.search(r"\d+", name)[0])
        assert name == f"<kind {place}>"
        found = re.findall(
            r'<li class="(hit|miss)">.*?alt="&lt;kind (\d+)&gt;, (hit|miss) at distance (\d+)"', row, flags=re.S
        )
        assert len(found) == 10
        assert all(kind == said == ("hit" if int(label) == place else "miss") for kind, label, said, _ in found)
        assert [int(distance) for *_, distance in found] == sorted(int(distance) for *_, distance in found)
        hits += sum(kind == "hit" for kind, *_ in found)
    assert f"200 neighbours {hits} share" in " ".join(page.split())
    first = [int(distance) for distance in re.findall(r"at distance (\d+)", rows[0])]
    assert first == sorted(((query[0] >= 0) != (database >= 0)).sum(1).tolist())[:10]
    assert labels[0].argmax() == 0 and len(theirs) == len(database)


def test_published_numbers_stand_beside(run, page, tmp_path, undrawn):
    assert "No source gives DHN's MAP on Fashion-MNIST" in page and "rerun in HashGAN" in page
    assert "0.512" in page, "the only rerun of CIFAR-10 at 8 bits"
    other = make(tmp_path, dataset="nus_wide")
    text = report.write(other).read_text()
    assert "not available" in text and "NUS-WIDE, 21 concepts" in text and "No source gives" not in text
    assert "0.708 at 12" in text, "the paper has no 8 bits"
    write_json(other.data / "split.json", {"split": "81-concepts", "seed": 5, "note": "all <of> them", "missing": 1200,
                                           "form": "JPEG copies"})  # fmt: skip
    text = report.write(other).read_text()
    assert "NUS-WIDE, 81 concepts" in text and "rerun in HashNet" in text and "0.668" in text
    assert (
        "split 81-concepts; drawn with seed 5; 1,200 images missing; images read from: JPEG copies; all &lt;of" in text
    )
    unknown = make(tmp_path / "unknown", dataset="mine")
    text = report.write(unknown).read_text()
    assert "No published MAP of mine is known here" in text and "rerun in" not in text


def test_dhn_b_is_ranked_by_real_values(tmp_path):
    run = make(tmp_path, variant="dhn_b")
    text = report.write(run).read_text()
    assert "Ranked by the dot product of real-valued codes" in " ".join(text.split()) and "DHN-B on Fashion" in text
    assert "no ties" in text


def test_a_run_that_is_not_scored_is_refused(tmp_path):
    run = make(tmp_path)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    write_json(run.folder / "metrics.json", metrics | {"map": metrics["map"] + 1e-6})
    with pytest.raises(RunError, match=r"says MAP .* and its codes give .*run: make score DATASET=fashion_mnist"):
        report.write(run)
    (run.folder / "metrics.json").unlink()
    with pytest.raises(RunError, match=r"is not scored .*run: make score"):
        report.write(run)
    assert not (run.folder / "report.html").exists()
    assert report_command.main(["fashion_mnist", "--bits", "3"]) == 1


def test_metrics_of_an_older_version_have_a_report_too(run, undrawn):
    metrics = json.loads((run.folder / "metrics.json").read_text())
    path, page = run.folder / "metrics.json", run.folder / "report.html"
    whole = {file: file.read_bytes() for file in (path, page)}
    try:
        old = (
            "read_as",
            "notes",
            "classes",
            "queries_unlabelled",
            "database_unlabelled",
            "recall_radius_2",
            "versions",
        )
        write_json(path, {key: value for key, value in metrics.items() if key not in (*old, "weights_sha256")})
        text = report.write(run).read_text()
        assert f"{metrics['map']:.4f}" in text and "Distinct codes" in text
        for broken in ([metrics], {"map": 0.5}):
            write_json(path, broken)
            with pytest.raises(RunError, match=r"is not scored .*run: make score"):
                report.write(run)
    finally:
        for file, content in whole.items():
            file.write_bytes(content)


def test_what_is_not_there_is_said(tmp_path):
    run = make(tmp_path)
    (run.data / "query_lmdb" / "data.mdb").unlink()
    run.log.unlink()
    for path in (run.folder / "deploy.prototxt", run.data / "label_names.txt", run.weights()):
        path.unlink()
    net = run.folder / "train_val.prototxt"
    net.write_bytes(b"# Gr\xf6\xdfe\n" + net.read_bytes())  # Latin-1
    text = report.write(run).read_text()
    assert "query_lmdb is missing; run: make data DATASET=fashion_mnist" in text and "<img" not in text
    assert "There is no train.log in this folder" in text and "not in this folder" in text


def collapse(run: Run) -> None:
    """The run's database has one code, its lists overlap; scored again."""
    for side in ("query", "database"):
        values, labels = codes.load(run.folder / f"{side}.npz")
        order = labels.argmax(1).argsort(kind="stable") if side == "database" else np.arange(len(labels))
        codes.save(run.folder / f"{side}.npz", values if side == "query" else np.full_like(values, 0.9), labels[order])
    files = [str(run.folder / f"{side}.npz") for side in ("query", "database")]
    scores = score_files(*files, ["standard", "hashnet"], codes_are="sign")
    split = {"overlap": {"query_in_database": 7, "train_in_database": 1}}
    write_metrics(run.folder / "metrics.json", scores, weights=run.weights(), dataset=run.dataset, split=split)


def test_the_page_of_collapsed_codes_says_that_the_map_is_worthless(tmp_path, shown):
    run = make(tmp_path)
    collapse(run)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    text = " ".join(report.write(run).read_text().split())
    begin = text[: text.index("<h2>MAP")]
    assert "7 query images are also in the database set, 1 train image is also in the database set" in begin
    assert "collapsed codes: all 200 database items have the same code" in begin
    assert f"MAP, standard, expected over ties</dt><dd>{metrics['map_expected']:.3f}</dd>" in begin
    assert "<dt>Distinct codes</dt><dd>1</dd>" in begin and 'class="first map_expected"' in text
    for seen in shown(run.folder / "report.html"):
        assert seen["drawings"] == 7


def test_a_browser_shows_it(run, tmp_path, shown):
    colour = make(tmp_path / "colour", colour=True)
    report.write(colour)
    for page, size in ((run.folder / "report.html", 28), (colour.folder / "report.html", 90)):
        for seen in shown(page):
            assert seen["widths"] == [size] * 220, "20 queries and their ten nearest"
            assert seen["title"] == "DHN, Fashion-MNIST, 8 bits" and seen["drawings"] == 7


def test_the_browser_notices_what_is_wrong(tmp_path, chromium):
    path = tmp_path / "broken.html"
    path.write_text(
        '<img src="data:image/png;base64,AAAA"><img src="http://localhost:1/a.png"><script>nothing()</script>'
    )
    seen = chromium.visit(path)
    assert seen["widths"] == [0, 0] and seen["asked"] == ["http://localhost:1/a.png"]
    assert any("nothing is not defined" in error for error in seen["errors"])
