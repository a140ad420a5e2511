"""The JSON files of a run: what is of another type than expected is named, by file and key."""

from __future__ import annotations

import json

import pytest
from dhn.experiments import measure
from dhn.pages.run_summary import sides_of
from dhn.runs import facts
from dhn.scoring import retrieval

SCORES = {"R": 9, "queries_counted": 3, "map": 0.5, "map_expected": 0.5, "map_low": 0.5, "map_high": 1}
METRICS = {**SCORES, "protocol": "standard", "bits": 48, "queries": 3, "database": 9, "protocols": {"standard": SCORES}}


@pytest.mark.parametrize(
    ("kinds", "good", "key", "wrong"),
    [
        (facts.METRICS, METRICS, "map", "0.5"),
        (facts.METRICS, METRICS, "map", 10**400),
        (facts.METRICS, METRICS, "map", float("nan")),
        (facts.METRICS, METRICS, "bits", True),
        (facts.METRICS, METRICS, "bits", 1.5),
        (facts.METRICS, METRICS, "protocols", ["standard"]),
        (facts.METRICS, METRICS, "protocols", {"standard": {**SCORES, "map": []}}),
        (facts.METRICS, METRICS, "protocols", {"standard": {}}),
        (facts.METRICS, METRICS, "read_as", "sign"),
        (facts.METRICS, METRICS, "codes", {"query": {"distinct": 3}}),
        (facts.RECORD, {"iterations": 3}, "iterations", "3"),
        (facts.RECORD, {"resumed_at": [1]}, "resumed_at", [None]),
        (facts.RECORD, {"settings": None}, "settings", []),
    ],
)
def test_a_fact_of_another_kind(tmp_path, kinds, good, key, wrong):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(good))
    assert facts.read(path, kinds) == good
    path.write_text(json.dumps({**good, key: wrong}))
    with pytest.raises(facts.FactsError, match=rf"metrics\.json: is damaged: '{key}' cannot be "):
        facts.read(path, kinds)


def test_a_missing_fact_and_a_missing_file(tmp_path):
    path = tmp_path / "metrics.json"
    assert facts.read(path, facts.METRICS) == {}
    path.write_text(json.dumps({"map": 0.5}))
    with pytest.raises(facts.FactsError, match="'protocol' cannot be nothing"):
        facts.read(path, facts.METRICS)


@pytest.mark.parametrize(
    ("key", "value"), [("map", "0.5"), ("queries", None), ("note", 3), ("R", [5]), ("database", None)]
)
def test_a_measure_that_a_file_holds(key, value):
    row = {**dict.fromkeys(measure.MEASURED, 0.5), "R": 5, "queries": 2, "database": 8, "note": ""}
    assert measure.is_measured(row) and not measure.is_measured({**row, key: value})
    assert not measure.is_measured([*row]) and not measure.is_measured({"map": 0.5})


@pytest.mark.parametrize("top", ["x", 5000.0, [], True, 0, -1])
def test_a_rank_that_none_can_be(tmp_path, top):
    (tmp_path / "split.json").write_text(json.dumps({"R": top}))
    with pytest.raises(ValueError, match=r"split\.json: is damaged: 'R' cannot be "):
        measure.ranks(tmp_path)
    for right, ranks in ((10, 10), ("all", None), (None, None)):
        (tmp_path / "split.json").write_text(json.dumps({"R": right}))
        assert measure.ranks(tmp_path) == ranks


@pytest.mark.parametrize(
    "source",
    [{"recipe": "x", "records": 3}, {"recipe": {}}, {"records": "x"}, {"recipe": {"inputs": None}, "records": 3}],
)
def test_what_an_lmdb_of_the_report_was_made_from(tmp_path, source):
    (tmp_path / "query_lmdb").mkdir()
    (tmp_path / "query_lmdb" / "source.json").write_text(json.dumps(source))
    with pytest.raises(facts.FactsError, match=r"source\.json: is damaged: '(recipe|records)' cannot be "):
        sides_of(tmp_path)


def test_the_bits_of_a_file_are_those_that_can_be_ranked():
    assert range(1, retrieval.MOST_BITS + 1) == facts.BITS
