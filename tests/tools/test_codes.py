"""What codes and labels in a file mean: the true MAP however they are stored, or a refusal that names the remedy."""

from __future__ import annotations

import numpy as np
import pytest
from dhn.codes import array_files
from dhn.codes import files as codes
from dhn.experiments import metrics
from dhn.scoring import retrieval

CLASSES, BITS = 10, 24
COUNTS = {"query": 20, "database": 150}


def draw():
    """Codes and class numbers of two sides, every class on each."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, BITS))
    sides = {}
    for side, count in COUNTS.items():
        classes = rng.permutation(np.arange(count) % CLASSES)
        sides[side] = np.tanh(centres[classes] + 1.5 * rng.standard_normal((count, BITS))).astype(np.float32), classes
    return sides


SIDES = draw()


def one_hot(classes):
    return np.eye(CLASSES, dtype=np.uint8)[classes]


TRUTH = retrieval.score(*(part for values, classes in SIDES.values() for part in (values, one_hot(classes))))["map"]


def score(folder, codes_of=lambda values: values, labels_of=one_hot, **declared):
    """Scores of both sides, each stored as `codes_of` and `labels_of` make it."""
    for side, (values, classes) in SIDES.items():
        np.savez(folder / f"{side}.npz", codes=codes_of(values), labels=labels_of(classes))
    return metrics.score_files(*(str(folder / f"{side}.npz") for side in SIDES), **declared)[0]


@pytest.mark.parametrize(
    ("labels_of", "read_as"),
    [
        (lambda c: c[:, None] + 1, "class numbers, 10 classes"),  # as MATLAB has them; the column of 0 stays empty
        (lambda c: c[:, None], "class numbers, 10 classes"),
        (lambda c: (c[:, None] + 1.0).astype(np.float32), "class numbers, 10 classes"),
        (lambda c: c.astype(np.uint8), "class numbers, 10 classes"),
        (lambda c: one_hot(c).astype(np.float64), "label vectors"),
        (lambda c: one_hot(c) == 1, "label vectors"),
        (lambda c: one_hot(c).astype(np.int64), "label vectors"),
    ],
    ids=["1 to 10", "0 to 9", "float", "one axis", "float vectors", "bool vectors", "int vectors"],
)
def test_labels_of_every_form_give_the_true_map(tmp_path, labels_of, read_as):
    scores = score(tmp_path, labels_of=labels_of)
    assert scores["map"] == TRUTH
    assert scores["read_as"]["labels"] == read_as
    assert sum("read as class numbers" in note for note in scores["notes"]) == (2 if "class" in read_as else 0)


@pytest.mark.parametrize(
    ("labels_of", "message"),
    [
        (lambda c: c[:, None] % 2, "query.npz: labels: found int64 (20, 1) of 0, 1 and -1 alone, which can be"),
        (lambda c: one_hot(c) * 2.0 - 1, "query.npz: labels, row 0: expected 0 and 1, or -1 throughout; found -1"),
        (lambda c: one_hot(c) * 0.9, "query.npz: labels, row 0: expected label vectors of 0 and 1 or whole class"),
        (lambda c: np.where(c, c, -1).astype(np.uint8), "found class number 255, which is what -1 becomes in uint8"),
        (lambda c: c + (len(c) == COUNTS["query"]), "query.npz has classes 1 to 10 and"),
        (lambda c: c if len(c) == COUNTS["query"] else one_hot(c), "query.npz has class numbers and"),
        (lambda c: one_hot(c)[:, : 9 + (len(c) > 20)], "query.npz has 9 label columns and"),
        (lambda c: c.astype(str), "query.npz: expected labels to be an array of numbers, found text"),
        (lambda c: np.full(len(c), -1), "query.npz: the labels are unknown (-1) in all 20 rows"),
    ],
    ids=["0 and 1", "-1 and +1", "soft", "wrapped", "from 1 and 0", "two forms", "columns", "text", "unknown"],
)
def test_labels_that_say_nothing_certain_are_refused(tmp_path, labels_of, message):
    with pytest.raises(ValueError) as error:
        score(tmp_path, labels_of=labels_of)
    assert message in str(error.value)


def test_a_column_of_0_and_1_is_what_it_is_declared_to_be(tmp_path):
    def column(classes):
        return classes[:, None] % 2

    with pytest.raises(array_files.CodesError, match="declare `classes` or `vectors` with --labels"):
        score(tmp_path, labels_of=column)
    arrays = {side: (values, classes % 2) for side, (values, classes) in SIDES.items()}
    for declared, vectors in (("classes", lambda c: np.eye(2)[c]), ("vectors", lambda c: c[:, None])):
        expected = retrieval.score(*(part for v, c in arrays.values() for part in (v, vectors(c))))["map"]
        assert score(tmp_path, labels_of=column, labels_are=declared)["map"] == expected
    with pytest.raises(array_files.CodesError, match="labels are declared vectors or classes, found 'numbers'"):
        score(tmp_path, labels_are="numbers")


def test_unknown_labels_are_left_out_in_every_form(tmp_path):
    known = {side: np.arange(count) % 4 > 0 for side, count in COUNTS.items()}
    kept = [part for side, (v, c) in SIDES.items() for part in (v[known[side]], one_hot(c)[known[side]])]
    expected = retrieval.score(*kept)["map"]
    forms = (
        lambda c: np.where(np.arange(len(c)) % 4, c, -1),
        lambda c: np.where(np.arange(len(c)) % 4, c + 1, -1)[:, None],
        lambda c: np.where(np.arange(len(c))[:, None] % 4, one_hot(c).astype(np.float32), -1),
    )
    for labels_of in forms:
        scores = score(tmp_path, labels_of=labels_of)
        assert scores["map"] == expected
        assert (scores["queries_unlabelled"], scores["database_unlabelled"]) == (5, 38)
        assert codes.load(tmp_path / "query.npz")[1][0].tolist() == [-1] * len(codes.load(tmp_path / "query.npz")[1][0])


def test_class_numbers_of_both_sides_get_the_same_columns(tmp_path):
    """The query has fewer classes than the database, and one item of it an unknown class."""
    values, classes = SIDES["query"]
    few = np.where(classes > 5, 2, classes)
    few[3] = -1
    np.savez(tmp_path / "query.npz", codes=values, labels=few)
    np.savez(tmp_path / "database.npz", codes=SIDES["database"][0], labels=SIDES["database"][1])
    scores = metrics.score_files(*(str(tmp_path / f"{side}.npz") for side in SIDES))[0]
    kept = np.arange(len(few)) != 3
    expected = retrieval.score(values[kept], one_hot(few[kept]), SIDES["database"][0], one_hot(SIDES["database"][1]))
    assert (scores["map"], scores["queries_unlabelled"]) == (expected["map"], 1)


def bits(values):
    return values >= 0


@pytest.mark.parametrize(
    ("codes_of", "codes_are"),
    [
        (bits, "01"),
        (lambda v: bits(v).astype(np.uint8), "01"),
        (lambda v: bits(v).astype(np.float64), "01"),
        (lambda v: 1 / (1 + np.exp(-v.astype(np.float64))), "threshold=0.5"),
        (lambda v: v + np.float32(3), "threshold=3"),
        (lambda v: bits(v) + 1, "threshold=1.5"),
        (lambda v: np.packbits(bits(v), axis=1), "packed"),
        (lambda v: np.packbits(bits(v), axis=1).view(np.int8), "packed"),
        (lambda v: np.packbits(bits(v), axis=1).astype(np.float64), "packed"),
    ],
    ids=["bool", "uint8", "float", "sigmoid", "shifted", "1 and 2", "packed", "packed int8", "packed float"],
)
def test_codes_that_are_no_signs_are_refused_and_read_rightly_once_declared(tmp_path, codes_of, codes_are):
    with pytest.raises(array_files.CodesError) as error:
        score(tmp_path, codes_of)
    assert "query.npz" in str(error.value) and "--codes sign, 01, packed or threshold=T" in str(error.value)
    scores = score(tmp_path, codes_of, codes_are=codes_are)
    assert (scores["map"], scores["bits"]) == (TRUTH, BITS)
    assert scores["read_as"]["codes"] == codes_are
    assert sum("read as" in note for note in scores["notes"]) == 2


@pytest.mark.parametrize(
    ("codes_of", "hint"),
    [
        (bits, "they look like bits (01)"),
        (lambda v: np.where(bits(v), 1, -1).astype(np.uint8), "255 is what -1 becomes in a type without a sign"),
        (lambda v: np.where(bits(v), 1, -1).astype(np.uint16), "65535 is what -1 becomes in a type without a sign"),
        (lambda v: np.packbits(bits(v), axis=1), "they look like packed bits (packed)"),
        (lambda v: (v + 1) / 2, "they look like outputs of a sigmoid (threshold=0.5)"),
    ],
    ids=["bits", "wrapped uint8", "wrapped uint16", "packed", "sigmoid"],
)
def test_the_refusal_says_what_the_codes_may_be(tmp_path, codes_of, hint):
    with pytest.raises(array_files.CodesError) as error:
        score(tmp_path, codes_of)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    "codes_of",
    [
        np.sign,
        lambda v: np.sign(v).astype(np.int8),
        lambda v: v.astype(np.float64) * 1e-300,  # below the range of float32, but with signs
        lambda v: v.astype(">f8"),
        np.asfortranarray,
    ],
    ids=["float signs", "int8 signs", "tiny", "big-endian", "Fortran order"],
)
def test_signs_in_any_type_are_plain(tmp_path, codes_of):
    scores = score(tmp_path, codes_of)
    assert (scores["map"], scores["read_as"]["codes"], scores["notes"]) == (TRUTH, "sign", [])


@pytest.mark.parametrize(
    ("codes_of", "codes_are", "message"),
    [
        (np.sign, "01", "query.npz: expected codes of 0 and 1 as declared, found"),
        (lambda v: v * 300, "packed", "query.npz: expected packed bits, whole numbers from 0 to 255 as declared"),
        (bits, "sign", "query.npz: bool codes have no signs; declare them with --codes 01"),
        (lambda v: v.astype(np.float64) * 1e300, None, "query.npz: codes up to 9.9"),
        (bits, "bits", "codes are declared sign, 01, packed or threshold=T, found 'bits'"),
        (bits, "threshold=0,5", "found 'threshold=0,5'; T is a number, as in threshold=0.5"),
        (bits, "threshold=nan", "found 'threshold=nan'"),
        (bits, "threshold", "found 'threshold'"),
        (bits, "01=1", "found '01=1'"),
    ],
)
def test_declarations_that_do_not_fit_are_refused(tmp_path, codes_of, codes_are, message):
    with pytest.raises(array_files.CodesError) as error:
        score(tmp_path, codes_of, codes_are=codes_are)
    assert message in str(error.value)


def test_one_side_without_a_negative_code_is_refused_unless_declared(tmp_path):
    def one_sided(values):
        return np.abs(values) if len(values) == COUNTS["database"] else values

    with pytest.raises(array_files.CodesError, match=r"database.npz: no code is negative \(float32 \(150, 24\) of "):
        score(tmp_path, one_sided)
    scores = score(tmp_path, one_sided, codes_are="sign")
    assert scores["codes"]["database"]["positive_least"] == 1
    assert "all 150 database items have the same code" in scores["notes"][0]


def test_a_threshold_is_compared_in_the_precision_of_the_codes():
    below, at = np.nextafter(0.5, 0), 0.5
    read, _ = codes.signs(np.array([[below, at]]), "threshold=0.5", 0.5, "x")
    assert read.dtype == np.float32 and (read >= 0).tolist() == [[False, True]]
    read, _ = codes.signs(np.array([[0.1, 0.2]], np.float32), "threshold=0.1", 0.1, "x")
    assert (read >= 0).all()


def test_files_of_our_own_say_that_one_column_is_a_label_vector(tmp_path):
    labels = np.arange(6)[:, None] % 2
    codes.save(tmp_path / "x.npz", np.ones((6, 4)), labels)
    assert codes.load(tmp_path / "x.npz")[1].tolist() == labels.tolist()
    two = np.array([[0, 1], [-1, -1]])
    codes.save(tmp_path / "x.npz", -np.ones((2, 4)), two)
    back = codes.load(tmp_path / "x.npz")[1]
    assert (back.dtype, back.tolist()) == (np.int8, two.tolist())
