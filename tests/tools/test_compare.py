"""The comparison: published rows and runs side by side, differing settings marked, what nobody gives as n/a."""

from __future__ import annotations

import csv
import json

import compare
import pytest
from dhn.experiments import side_by_side
from dhn.experiments.compared_rows import Row, local_rows
from dhn.experiments.compared_settings import settings_rows
from dhn.experiments.run_table import Setting, nearest, read_runs
from dhn.files import write_json

SPLIT = {"split": "paper", "R": "all"}


def scores(value: float, top: int = 54000) -> dict:
    return {"R": top, "map": value, "map_low": value - 0.01, "map_high": value + 0.02}


def metrics(root, name: str, **facts) -> None:
    folder = root / "runs" / name
    folder.mkdir(parents=True)
    shared = {"queries": 1000, "database": 54000, "split": SPLIT, "net": "alexnet", "seed": 1, "variant": "dhn"}
    write_json(folder / "metrics.json", {**shared, **facts})


def compared(dataset, bits, root) -> bool:
    return side_by_side.compare(dataset, bits, read_runs(root)[0], root)


def rows_of(dataset, root) -> list[Row]:
    return local_rows(read_runs(root)[0], dataset)[dataset]


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
    rows = {row.setting.method: row for row in rows_of("cifar10", root)}
    assert list(rows) == ["DHN", "DHN-B", "DHN-E", "ITQ"]
    dhn = rows["DHN"]
    assert dhn.maps == {12: pytest.approx(0.55)} and dhn.ties == {12: (pytest.approx(0.49), pytest.approx(0.62))}
    assert dhn.source == "here, AlexNet, split paper, R=all, mean of 2 seeds" and dhn.seeds == {12: [1, 2]}
    assert (dhn.setting.R, dhn.setting.net, dhn.setting.protocol) == ("all", "AlexNet", "standard")
    assert (rows["DHN-B"].setting.ranks, rows["DHN-E"].setting.net) == ("real values", "CaffeNet")
    assert rows["ITQ"].setting.net == "pixels"


def test_runs_with_settings_of_their_own_stand_in_rows_of_their_own(root, capsys):
    about = {"dataset": "cifar10", "bits": 12, "protocols": {"standard": scores(0.9)}, "edited": ["solver.prototxt"]}
    metrics(root, "cifar10-dhn-12-seed3", **about, seed=3, settings={"base_lr": 0.1, "momentum": 0.8})
    rows = [row for row in rows_of("cifar10", root) if row.setting.method == "DHN"]
    own = 'LR=0.1 SET="momentum=0.8", edited by hand: solver.prototxt'
    assert [(row.seeds, row.setting.settings) for row in rows] == [({12: [1, 2]}, None), ({12: [3]}, own)]
    assert rows[1].source == f"here, AlexNet, split paper, R=all, {own}"
    assert compared("cifar10", None, root)
    assert "momentum=0.8" in capsys.readouterr().out
    settings = json.loads((root / "runs/compare-cifar10.json").read_text())["settings"]
    assert [each["settings"] for each in settings if "DHN" in each["methods"] and each["source"] == "here"] == [
        None,
        own,
    ]


def test_a_run_that_is_a_cell_as_well_counts_once(root):
    about = {"dataset": "cifar10", "bits": 12, "variant": "dhn_b"}
    metrics(root, "cifar10-dhn_b-12", **about, protocols={"dhn-caffe": scores(0.55)})
    (row,) = [row for row in rows_of("cifar10", root) if row.setting.method == "DHN-B"]
    assert row.seeds == {12: [1]} and row.maps == {12: 0.55}


def test_splits_stand_in_one_table_unless_published_apart(root, capsys):
    other = {"split": {"split": "10k-50k", "R": "all"}, "queries": 10000, "database": 50000}
    metrics(root, "cifar10-dhn-24", dataset="cifar10", bits=24, **other, protocols={"standard": scores(0.8)})
    compared("cifar10", [12, 24], root)
    said = capsys.readouterr().out
    assert "≠ paper" in said and "10k-50k" in said and "0.550" in said and "0.800" in said
    split = {"split": "81-concepts", "R": 5000}
    metrics(root, "nus_wide-dhn-12", dataset="nus_wide", bits=12, split=split, protocols={"hash-caffe": scores(0.6)})
    compared("nus_wide", [12, 32], root)
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
        assert nearest(known, real, top)[0] == name
    assert nearest({"hashnet": {}}, True, 5000)[0] == "hashnet"  # what there is


def row(setting: Setting, is_local: bool = False) -> Row:
    return Row(setting, is_local, maps={12: 0.5}, seeds={12: [1]})


def test_a_published_cell_is_marked_where_a_run_of_its_method_differs():
    paper = Setting("DHN paper", "DHN", "Hamming distance", "all", "paper", 1000, 54000, "AlexNet")
    here = Setting("here", "DHN", "Hamming distance", 5000, "paper", 1000, 64000, "CaffeNet", "hash-caffe")
    published, local = settings_rows([row(paper), row(here, True)])
    assert published.differs == ("R", "database", "net") and local.differs == ()
    assert published.texts() == [
        "DHN paper (DHN)", "Hamming distance", "≠ all", "paper", "1,000", "≠ 54,000", "≠ AlexNet"]  # fmt: skip
    assert local.texts()[0] == "here (DHN)\nprotocol hash-caffe" and local.texts()[2] == "5,000"
    same = Setting("here", "DHN", "Hamming distance", "all", "paper", 1000, 54000, "AlexNet", "standard")
    assert settings_rows([row(paper), row(same, True)])[0].differs == ()
    some = Setting("a rerun", "DHN", R=5000, queries=1000, database=54000, net="AlexNet")
    rerun = settings_rows([row(some), row(same, True)])[0]
    assert rerun.texts()[1:] == ["?", "≠ 5,000", "?", "1,000", "54,000", "AlexNet"], (
        "what is not stated is no difference"
    )
    assert settings_rows([row(some), row(here, True)])[0].differs == ("database", "net")
    assert settings_rows([row(some), row(here, True), row(same, True)])[0].differs == ("R", "database", "net")
    other = settings_rows([row(paper), row(Setting("here", "DHN-Q", R=1), True)])
    assert other[0].differs == (), "a run of another method is not compared with it"


def test_methods_of_one_setting_stand_in_one_row():
    facts = ("Hamming distance", "all", "paper", 1000, 54000, "AlexNet")
    rows = [row(Setting("DHN paper", name, *facts)) for name in ("DHN", "DHN-Q", "DHN-E")]
    assert [each.methods for each in settings_rows(rows)] == [["DHN", "DHN-Q", "DHN-E"]]
    rows.append(row(Setting("here", "DHN-Q", R=5000), True))
    assert [(each.methods, each.differs) for each in settings_rows(rows)] == [
        (["DHN", "DHN-E"], ()),
        (["DHN-Q"], ("R",)),
        (["DHN-Q"], ()),
    ]
    empty = Row(Setting("DHN paper", "DHN-Q", *facts), False)  # n/a: nothing to compare
    assert settings_rows([empty, rows[-1]])[0].differs == ()


def test_the_table_and_its_files(root, capsys):
    assert compared("cifar10", [12, 24], root)
    text = capsys.readouterr().out
    assert "…" not in text
    for word in ("n/a", "0.555", ".490-.620", "rerun in DVSQ"):
        assert word in text
    assert "n/a: no source that could be read gives the numbers of DHN-B, DHN-Q, DHN-E." in text
    assert "≠: a run of the same method here has another value" in " ".join(text.split())
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
    assert len(facts["rows"]) == len(rows)
    differs = {each["source"]: each["differs"] for each in facts["settings"] if "DHN" in each["methods"]}
    assert differs["DHN paper, table 1"] == [] and differs["rerun in ADSH"] == ["net"]
    (own,) = [each for each in facts["settings"] if each["source"] == "here" and each["methods"] == ["DHN"]]
    assert (own["ranks"], own["R"], own["split"], own["queries"], own["database"]) == (
        "Hamming distance", "all", "paper", 1000, 54000)  # fmt: skip
    page = (root / "runs/compare-cifar10.html").read_text()
    assert "DHN\nhere, AlexNet, split paper, R=all, mean of 2 seeds</th>" in page
    assert "AAAI 2016" in page and "0.550\n.490-.620" in page and '<td class="differs">≠ ' in page


def test_a_data_set_nobody_published_is_read_beside_the_one_it_follows(root, capsys):
    compared("fashion_mnist", [48], root)
    text = capsys.readouterr().out
    assert "The published numbers are of CIFAR-10, another data set:" in text and "0.621" in text
    assert not compared("unheard", [48], root)


def test_bad_input_is_one_sentence(root, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", root)
    assert compare.main(["unheard"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("compare: nothing is published on unheard") and said.count("\n") == 1


def test_files_that_hold_no_scores_are_named_and_leave_the_others(root, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", root)
    files = {"cut": "{\"dataset\": ", "list": "[1, 2]", "bits": '{"protocols": {"standard": {"map": 1}}}',
             "none": '{"protocols": {}}', "text": '{"protocols": {"standard": {"map": "high"}}, "queries": 1,'
             ' "database": 1, "bits": 8}', "empty": "", "lists": '{"protocols": {"standard": {"map": 0.5}}, "bits": 8,'
             '"queries": 1, "database": 1, "seed": [1]}', "wide": '{"protocols": {"standard": {"map": 0.5}},'
             '"bits": 16384, "queries": 1, "database": 1}', "deep": 100_000 * "["}  # fmt: skip
    for name, text in files.items():
        (root / "runs" / name).mkdir()
        (root / "runs" / name / "metrics.json").write_text(text)
    (root / "runs" / "binary").mkdir()
    (root / "runs" / "binary" / "metrics.json").write_bytes(b"\xff\xfe\x00")
    cells = root / "runs/cifar10-ablation/cells"
    (cells / "broken.json").write_text('{"dataset": "cifar10"}')
    whole = json.loads(next(path for path in sorted(cells.glob("*.json")) if "dhn_b" in path.read_text()).read_text())
    (cells / "half_a_query.json").write_text(json.dumps(whole | {"queries": 0.5}))
    (cells / "net.json").write_text(json.dumps(whole | {"net": 3}))
    (cells / "long.json").write_text(json.dumps(whole | {"map": 10**400}))
    about = {"dataset": "cifar10", "bits": 12, "seed": 9}
    metrics(root, "cifar10-dhn-12-seed9", **about, protocols={"standard": dict.fromkeys(scores(0), None)})
    assert compare.main(["cifar10"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in (*files, "binary"):
        assert f"left out: runs/{name}/metrics.json: expected " in text
    for name in ("broken", "half_a_query", "net", "long"):
        wrong = f"left out: runs/cifar10-ablation/cells/{name}.json: expected scores as tools/score_run.py writes"
        assert wrong in text
    assert "left out: runs/cifar10-dhn-12-seed9/metrics.json: no query counts, so there is no MAP" in text
    assert "0.550" in text, "the others are compared"


def test_a_variant_that_was_added_has_its_own_name_and_any_length_its_column(root, capsys):
    about = {"dataset": "cifar10", "bits": 16}
    metrics(root, "cifar10-dhn_x-16", **about | {"variant": "dhn_x"}, protocols={"standard": scores(0.31)})
    baseline = {"method": "kmeans", "features": "pixels", "split": SPLIT}
    metrics(root, "cifar10-kmeans_pixels-16", **about | {"variant": None}, protocols={"standard": scores(0.21)},
            baseline=baseline)  # fmt: skip
    assert compared("cifar10", None, root)
    text = capsys.readouterr().out
    assert "dhn_x" in text and "0.310" in text and "kmeans" in text and "0.210" in text
    headers = [" ".join(line.split()) for line in text.splitlines() if line.split()[:2] == ["MAP", "method"]]
    assert headers == ["MAP method 12 bits 16 bits 24 bits 32 bits", "MAP method 48 bits"]
    assert text.count("kmeans") == 2, "in the table where it has a number, and among the settings"
    assert [row.setting.method for row in rows_of("cifar10", root)][-2:] == ["dhn_x", "kmeans"]
    metrics(root, "mine-dhn-7", dataset="mine", bits=7, protocols={"standard": scores(0.4)})
    assert compared("mine", None, root) and "7 bits" in capsys.readouterr().out
    assert not compared("mine", [12], root)


def test_what_an_older_version_or_another_tool_wrote_is_shown_with_what_it_says(root, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", root)
    folder = root / "runs/old"
    folder.mkdir()
    facts = {"dataset": "cifar10", "bits": 12, "queries": 9, "database": 90, "protocols": {"hashnet": {"map": 0.123}}}
    write_json(folder / "metrics.json", facts)
    assert compare.main(["cifar10"]) == 0
    text = capsys.readouterr().out
    assert "0.123" in text and "unknown variant" in text
    settings = json.loads((root / "runs/compare-cifar10.json").read_text())["settings"]
    (old,) = [each for each in settings if each["methods"] == ["unknown variant"]]
    assert (old["ranks"], old["queries"], old["database"], old["protocol"]) == ("Hamming distance", 9, 90, "hashnet")
    assert old["R"] is None and "protocol hashnet" in " ".join(text.split())


def test_runs_by_hand_stand_in_rows_of_their_own(root, monkeypatch, capsys):
    monkeypatch.setattr(compare, "ROOT", root)
    about = {"dataset": "cifar10", "bits": 12, "made_by_hand": True, "protocols": {"standard": scores(0.9)}}
    metrics(root, "mine", **about)  # the same setting and seed as a run of make train
    metrics(root, "other", **about | {"variant": None, "seed": None, "split": None, "net": None})
    rows = {row.setting.source: row for row in rows_of("cifar10", root) if row.setting.source != "here"}
    assert {source: row.setting.method for source, row in rows.items()} == {
        "runs/mine": "DHN",
        "runs/other": "unknown variant",
    }
    assert next(row for row in rows_of("cifar10", root) if row.setting.method == "DHN").maps == {
        12: pytest.approx(0.55)
    }
    unknown = {"dataset": None, "bits": 20, "made_by_hand": True, "variant": None, "seed": None, "split": None}
    metrics(root, "third", **unknown, protocols={"standard": scores(0.7)})
    metrics(root, "fourth", **unknown | {"dataset": None}, protocols={"standard": scores(0.3)})
    assert compare.main([]) == 0
    text = capsys.readouterr().out
    assert "Runs of an unknown data set" in text and "20 bits" in text and "runs/third" in text and "0.300" in text
    assert "runs/mine" in text and (root / "runs/compare-unknown.html").exists()


def test_collapsed_codes_and_a_leaking_split_are_marked(root, capsys):
    wide = {"R": 54000, "map": 0.422, "map_expected": 0.313, "map_low": 0.149, "map_high": 1.0}
    codes = {"query": {"distinct": 9}, "database": {"distinct": 1}}
    leak = SPLIT | {"overlap": {"query_in_database": 25}}
    about = {"dataset": "cifar10", "bits": 12, "codes": codes, "split": leak, "variant": "dhn_q"}
    metrics(root, "cifar10-dhn_q-12", **about, protocols={"standard": wide})
    assert compared("cifar10", None, root)
    text = " ".join(capsys.readouterr().out.split())
    assert "0.313*" in text and "*: see the caveats" in text
    assert "DHN-Q, 12 bits (runs/cifar10-dhn_q-12): collapsed codes: all 54,000 database items have the same" in text
    assert "quote its expected value over all tie orders, 0.3130" in text
    assert "overlap 25 query images are also in the database set" in text
    (row,) = [row for row in rows_of("cifar10", root) if row.setting.method == "DHN-Q"]
    assert "25 query images are also in the database set" in row.source
    page = (root / "runs/compare-cifar10.html").read_text()
    assert "0.313*" in page and "Caveats" in page and "25 query images are also in the database set" in page
    facts = json.loads((root / "runs/compare-cifar10.json").read_text())
    assert len(facts["caveats"]) == 2
    (number,) = [row for row in facts["rows"] if row["source"] == "here" and row["method"] == "DHN-Q"]
    assert (number["map"], number["quoted"], number["map_low"]) == (0.422, 0.313, 0.149)
    # a run of the same split without the overlap stays apart
    metrics(root, "cifar10-dhn_q-12-seed2", **about | {"split": SPLIT, "codes": {}, "seed": 2},
            protocols={"standard": scores(0.6)})  # fmt: skip
    assert len([row for row in rows_of("cifar10", root) if row.setting.method == "DHN-Q"]) == 2


def test_copies_of_the_images_are_said_beside_the_numbers(root, capsys):
    about = {"dataset": "cifar10", "bits": 12, "variant": "dhn_q", "protocols": {"standard": scores(0.6)}}
    metrics(root, "cifar10-dhn_q-12", **about, split=SPLIT | {"form": "binary version"}, seed=1)
    metrics(root, "cifar10-dhn_q-12-seed2", **about, split=SPLIT, seed=2)  # of a version that did not record it
    metrics(root, "cifar10-dhn_q-12-copies", **about, split=SPLIT | {"form": "JPEG copies"}, seed=1)
    assert compared("cifar10", None, root)
    text = " ".join(capsys.readouterr().out.split())
    assert "JPEG copies: the images of these runs are not the original pixels." in text
    originals, copies = sorted(
        (row for row in rows_of("cifar10", root) if row.setting.method == "DHN-Q"), key=lambda row: row.source[-6:]
    )
    assert originals.seeds == {12: [1, 2]} and "copies" not in originals.source and "version" not in originals.source
    assert copies.seeds == {12: [1]} and ", JPEG copies" in copies.source
    assert "JPEG copies" in (root / "runs/compare-cifar10.html").read_text()
    facts = json.loads((root / "runs/compare-cifar10.json").read_text())["rows"]
    assert {row["images"] for row in facts if row["source"] == "here" and row["method"] == "DHN-Q"} == {
        None, "JPEG copies"}  # fmt: skip


def test_a_browser_shows_the_page(root, shown):
    assert compared("cifar10", [12, 24, 32, 48], root)
    for seen in shown(root / "runs/compare-cifar10.html"):
        assert seen["title"] == "CIFAR-10: published and here"
