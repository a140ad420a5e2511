"""The comparison: published rows and runs side by side, what differs said in words, what nobody gives as n/a."""

from __future__ import annotations

import csv
import json

import compare
import pytest
from compare import Setting
from run_folder import write_json

SPLIT = {"split": "paper", "R": "all"}


def scores(value: float, top: int = 54000) -> dict:
    return {"R": top, "map": value, "map_low": value - 0.01, "map_high": value + 0.02}


def metrics(root, name: str, **facts) -> None:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    shared = {"queries": 1000, "database": 54000, "split": SPLIT, "net": "alexnet", "seed": 1, "variant": "dhn"}
    write_json(folder / "metrics.json", {**shared, **facts})


@pytest.fixture
def root(tmp_path):
    """Runs on CIFAR-10: DHN with two seeds, dhn_e, ITQ on pixels, a cell of DHN-B; one of another data set."""
    known = {"standard": scores(0.5), "hash-caffe": scores(0.6, 5000), "dhn-caffe": scores(0.7, 5000)}
    about = {"dataset": "cifar10", "bits": 12}
    metrics(tmp_path, "cifar10-dhn-12", **about, protocols=known)
    metrics(tmp_path, "cifar10-dhn-12-seed2", **about | {"seed": 2}, protocols={"standard": scores(0.6)})
    metrics(tmp_path, "cifar10-dhn_e-12", **about | {"variant": "dhn_e", "net": "caffenet"}, protocols=known)
    baseline = {"method": "itq", "features": "pixels", "split": SPLIT}
    metrics(tmp_path, "cifar10-itq_pixels-12", **about | {"variant": None}, protocols=known, baseline=baseline)
    metrics(tmp_path, "cifar10-of_mine-dhn-12", dataset="cifar10-of_mine", bits=12, protocols=known)
    cell = {**about, **scores(0.55), "variant": "dhn_b", "seed": 1, "net": "alexnet", "queries": 1000}
    cells = tmp_path / "runs/cifar10-ablation/cells"
    cells.mkdir(parents=True)
    write_json(cells / "cifar10-dhn_b-12.json", {**cell, "database": 54000, "made": {"real": True, "split": SPLIT}})
    return tmp_path


def test_runs_of_one_setting_stand_in_one_row(root):
    rows = {row.setting.method: row for row in compare.ours("cifar10", root)["cifar10"]}
    assert list(rows) == ["DHN", "DHN-B", "DHN-E", "ITQ"]
    dhn = rows["DHN"]
    assert dhn.maps == {12: pytest.approx(0.55)} and dhn.ties == {12: (pytest.approx(0.49), pytest.approx(0.62))}
    assert dhn.source == "here, AlexNet, split paper, R=all, mean of 2 seeds" and dhn.seeds == {12: [1, 2]}
    assert (dhn.setting.R, dhn.setting.net, dhn.setting.protocol) == ("all", "AlexNet", "standard")
    assert (rows["DHN-B"].setting.ranks, rows["DHN-E"].setting.net) == ("real values", "CaffeNet")
    assert rows["ITQ"].setting.net == "pixels"


def test_a_run_that_is_a_cell_as_well_counts_once(root):
    about = {"dataset": "cifar10", "bits": 12, "variant": "dhn_b"}
    metrics(root, "cifar10-dhn_b-12", **about, protocols={"dhn-caffe": scores(0.55)})
    (row,) = [row for row in compare.ours("cifar10", root)["cifar10"] if row.setting.method == "DHN-B"]
    assert row.seeds == {12: [1]} and row.maps == {12: 0.55}


def test_splits_stand_in_one_table_unless_published_apart(root, capsys):
    other = {"split": {"split": "10k-50k", "R": "all"}, "queries": 10000, "database": 50000}
    metrics(root, "cifar10-dhn-24", dataset="cifar10", bits=24, **other, protocols={"standard": scores(0.8)})
    compare.compare("cifar10", [12, 24], root)
    said = capsys.readouterr().out
    assert "the split (paper there, 10k-50k here)" in said and "0.550" in said and "0.800" in said
    split = {"split": "81-concepts", "R": 5000}
    metrics(root, "nus_wide-dhn-12", dataset="nus_wide", bits=12, split=split, protocols={"hash-caffe": scores(0.6)})
    compare.compare("nus_wide", [12, 32], root)
    assert "rerun in HashNet" in capsys.readouterr().out and (root / "runs/compare-nus_wide_81.html").exists()


def test_the_protocol_is_the_one_nearest_to_the_published_tables():
    known = {key: {} for key in ("standard", "hash-caffe", "dhn-caffe", "hash-caffe@1000")}
    for real, top, name in (
        (False, "all", "standard"),
        (False, None, "standard"),
        (False, 5000, "hash-caffe"),
        (False, 1000, "hash-caffe@1000"),
        (True, "all", "dhn-caffe"),
    ):
        assert compare.nearest(known, real, top)[0] == name
    assert compare.nearest({"standard": {}}, True, 5000) is None


def test_a_sentence_says_what_differs_and_what_is_not_known():
    paper = Setting("DHN paper", "DHN", "Hamming distance", "all", "paper", 1000, 54000, "AlexNet")
    here = Setting("here", "DHN", "Hamming distance", 5000, "paper", 1000, 64000, "CaffeNet", "hash-caffe")
    assert compare.difference(paper, here) == (
        "DHN in DHN paper and DHN here differ in R (all there, 5,000 here), the number of database images (54,000 "
        "there, 64,000 here) and the net or features (AlexNet there, CaffeNet here)."
    )
    same = Setting("here", "DHN", "Hamming distance", "all", "paper", 1000, 54000, "AlexNet", "standard")
    assert compare.difference(paper, same) == "DHN in DHN paper and DHN here agree in what the source states."
    some = Setting("a rerun", "DHN", R=5000, queries=1000, database=54000, net="AlexNet")
    assert compare.difference(some, same) == (
        "DHN in a rerun and DHN here differ in R (5,000 there, all here); the source does not state what ranks and "
        "the split."
    )
    assert "states no setting" in compare.difference(Setting("a rerun", "DHN"), same)


def test_the_table_and_its_files(root, capsys):
    assert compare.compare("cifar10", [12, 24], root)
    text = capsys.readouterr().out
    assert "…" not in text
    for word in ("n/a", "0.555", ".490-.620", "rerun in DVSQ"):
        assert word in text
    assert "- here (DHN): ranked by Hamming distance, R all, split paper, queries 1,000, database 54,000" in text
    assert "n/a: no source that could be read gives the numbers of DHN-B, DHN-Q and DHN-E." in text
    assert "DHN-E in" not in text  # no published number: nothing to compare
    with open(root / "runs/compare-cifar10.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    paper = [row for row in rows if row["source"] == "DHN paper, table 1" and row["method"] == "DHN"]
    assert [(row["bits"], row["map"], row["map_low"], row["database"]) for row in paper] == [
        ("12", "0.555", "", "54000"),
        ("24", "0.594", "", "54000"),
    ]
    assert {row["map"] for row in rows if row["source"] == "DHN paper, table of variants"} == {""}
    (mine,) = [row for row in rows if row["source"] == "here" and row["method"] == "DHN"]
    assert (mine["seeds"], mine["protocol"]) == ("2", "standard")
    facts = json.loads((root / "runs/compare-cifar10.json").read_text())
    assert len(facts["rows"]) == len(rows) and facts["differences"]
    page = (root / "runs/compare-cifar10.html").read_text()
    assert "DHN\nhere, AlexNet, split paper, R=all, mean of 2 seeds</th>" in page
    assert "AAAI 2016" in page and "0.550\n.490-.620" in page and "the source does not state" in page


def test_a_data_set_nobody_published_is_read_beside_the_one_it_follows(root, capsys):
    compare.compare("fashion_mnist", [48], root)
    text = capsys.readouterr().out
    assert "The published numbers are of CIFAR-10, another data set:" in text and "0.621" in text
    assert not compare.compare("unheard", [48], root)


def test_bad_input_is_one_sentence(root, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", root)
    assert compare.main(["unheard"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("compare: nothing is published on unheard") and said.count("\n") == 1
    (root / "runs/cifar10-dhn-12/metrics.json").write_text("{")
    with pytest.raises(ValueError, match=r"cifar10-dhn-12/metrics.json: expected JSON"):
        compare.compare("cifar10", [12], root)


def test_a_browser_shows_the_page(root, shown):
    assert compare.compare("cifar10", [12, 24, 32, 48], root)
    for seen in shown(root / "runs/compare-cifar10.html"):
        assert seen["title"] == "CIFAR-10: published and here"
