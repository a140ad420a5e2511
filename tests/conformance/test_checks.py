"""Each check of BVLC's that a user reaches has its recorded case, and the list is complete."""

from __future__ import annotations

import pytest

import checks
import comparison
import storage

RECORDED = storage.load(comparison.RECORDED)


@pytest.mark.parametrize("place", sorted(checks.places("reached")))
def test_a_case_stops_at_each_check(place):
    assert place in checks.cases(RECORDED), "no recorded case stops here any more"


def test_each_check_that_a_case_stops_at_is_listed_as_reached():
    assert checks.cases(RECORDED).keys() - checks.places("reached") == set()


def test_no_check_is_listed_twice():
    reached, unreached = map(checks.places, checks.KINDS)
    assert not reached & unreached and (len(reached), len(unreached)) == (399, 267)


def test_the_summary_counts_what_the_engine_answers():
    lost = {name: {} for name in checks.cases(RECORDED)["net.cpp:79"]}
    assert checks.summary(RECORDED, RECORDED).endswith("reaches: 399, recorded: 399, answered: 399")
    assert checks.summary(RECORDED, {**RECORDED, **lost}).endswith("answered: 398")


def test_a_table_that_cannot_be_read_names_its_line(tmp_path):
    table = tmp_path / "checks.txt"
    table.write_text("src/caffe/net.cpp\n  reached 79\n")
    with pytest.raises(ValueError, match=r"checks.txt:2: expected a file, or reached"):
        checks.places("reached", table)
