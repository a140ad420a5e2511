"""The published numbers: whole, sensible, each with its source; what nobody gives is not there."""

from __future__ import annotations

import json

import pytest
from dhn import published


@pytest.mark.parametrize("dataset", ["cifar10", "nus_wide", "flickr25k"])
def test_the_paper_has_dhn_at_its_four_lengths(dataset):
    (paper,) = [row for row in published.rows(dataset) if row.method == "DHN" and "paper" in row.title]
    assert list(paper.maps) == [12, 24, 32, 48] and paper.net == "AlexNet"
    values = list(paper.maps.values())
    assert values == sorted(values), "the paper's MAP grows with the bits"
    others = [row for row in published.rows(dataset) if row.title == paper.title and row.method != "DHN"]
    assert len(others) >= 9 and all(row.maps[48] < paper.maps[48] for row in others)


def test_a_number_that_no_source_gives_is_not_there():
    for dataset in ("cifar10", "nus_wide", "flickr25k"):
        variants = [row for row in published.rows(dataset) if row.method in ("DHN-B", "DHN-Q", "DHN-E")]
        assert len(variants) == 3 and not any(row.maps for row in variants)
    assert {row.R for row in published.rows("flickr25k")} == {None}


def test_a_split_of_its_own_has_its_own_numbers():
    assert published.key("nus_wide", "81-concepts") == "nus_wide_81"
    assert published.key("nus_wide", "paper") == "nus_wide" and published.key("mine", None) == "mine"
    assert [row.R for row in published.rows("nus_wide_81")] and published.rows("nus_wide_81") != published.rows(
        "nus_wide"
    )


def test_every_row_is_of_a_known_source_and_data_set():
    facts = json.loads(published.FILE.read_text())
    for row in facts["rows"]:
        assert row["dataset"] in facts["datasets"] and row["source"] in facts["sources"]
        assert all(0 < value < 1 and int(bits) > 0 for bits, value in row["map"].items())
    assert {row["source"] for row in facts["rows"]} == set(facts["sources"])


def test_a_data_set_nobody_published_names_the_one_it_follows():
    assert published.rows("fashion_mnist") == [] and published.title("fashion_mnist") == "Fashion-MNIST"
    near, why = published.stand_in_for("fashion_mnist")
    assert published.rows(near) and why
    assert published.stand_in_for("cifar10") is None and published.stand_in_for("unheard") is None
    assert published.title("unheard") == "unheard" and published.rows("unheard") == []


def test_settings_are_known_or_open_never_guessed():
    (paper,) = [row for row in published.rows("cifar10") if row.method == "DHN" and "paper" in row.title]
    assert (paper.ranks, paper.split, paper.queries, paper.database) == ("Hamming distance", "paper", 1000, 54000)
    (other,) = [row for row in published.rows("nus_wide") if row.method == "DHN" and "ADSH" in row.title]
    assert (other.ranks, other.split, other.queries, other.database) == (None, None, None, None)
