"""What labels mean: one rule, by shape, value and declaration."""

import labels
import numpy as np
import pytest
from labels import LabelError, vectors

VECTORS = np.array([[1, 0, 1], [0, 0, 0], [-1, -1, -1]])
NUMBERS = np.array([2, 0, -1, 1])
ONE_HOT = np.array([[0, 0, 1], [1, 0, 0], [-1, -1, -1], [0, 1, 0]])


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_label_vectors_are_taken_as_they_are(dtype):
    table, note = vectors(VECTORS.astype(dtype))
    assert table.dtype == np.int8 and note == ""
    np.testing.assert_array_equal(table, VECTORS)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16])
def test_one_hot_arrays_of_other_types_are_label_vectors(dtype):
    table, note = vectors(np.eye(3, dtype=dtype))
    assert note == ""
    np.testing.assert_array_equal(table, np.eye(3))


@pytest.mark.parametrize("array", [NUMBERS, NUMBERS[:, None], NUMBERS.astype(np.float64), NUMBERS.tolist()])
def test_class_numbers_are_read_and_said(array):
    table, note = vectors(array, where="x.npz: labels")
    np.testing.assert_array_equal(table, ONE_HOT)
    assert note == f"x.npz: labels {np.shape(array)}: read as class numbers 0 to 2 of 3 classes, 1 rows unknown (-1)"


def test_matlab_columns_from_0_and_from_1_rank_alike():
    numbers = np.arange(40) % 10
    tables = [vectors((numbers + first)[:, None].astype(np.uint8))[0] for first in (0, 1)]
    for table in tables:
        np.testing.assert_array_equal(table.astype(int) @ table.T > 0, numbers[:, None] == numbers)


@pytest.mark.parametrize("array", [[[1], [0], [1]], [[-1], [0]], np.ones((4, 1), bool), np.array([True, False])])
def test_what_can_mean_either_is_refused_unless_declared(array):
    with pytest.raises(LabelError, match="can be class numbers or label vectors of one label; declare `classes` or"):
        vectors(array)
    table, note = vectors(array, declared="classes")
    assert table.shape == (len(array), max(int(np.max(array)) + 1, 1)) and "class numbers" in note
    if np.ndim(array) == 2:
        table, note = vectors(array, declared="vectors")
        np.testing.assert_array_equal(table, np.asarray(array, int))
        assert note == ""


def test_a_number_of_classes_above_1_declares_a_column():
    assert vectors([[1], [0]], classes=2)[0].tolist() == [[0, 1], [1, 0]]
    with pytest.raises(LabelError, match="declare"):
        vectors([[1], [0]], classes=1)


def test_one_class():
    assert vectors([0, 0, -1])[0].tolist() == [[1], [1], [-1]]
    table, note = vectors([-1, -1])
    assert table.tolist() == [[-1], [-1]] and note.endswith("class numbers of 1 class, 2 rows unknown (-1)")
    assert vectors([0, 3], classes=5)[0].shape == (2, 5)


@pytest.mark.parametrize(
    "array, keywords, message",
    [
        (
            [[1, 0], [1, -1]],
            {},
            r"labels, row 1: expected 0 and 1, or -1 throughout; found -1 among other labels. Write 0",
        ),
        ([[-1, 1, -1], [1, -1, -1]], {}, "row 0: .* Write 0 where an image does not carry a label"),
        (np.array([[0, 1], [255, 255]], np.uint8), {}, r"row 1: .* found 255 \(what -1 becomes in uint8: store"),
        (np.array([[255], [0]], np.uint8), {}, "row 0: found class number 255, which is what -1 becomes in uint8"),
        (np.array([3, 255], np.uint8), {}, "row 1: .* or say that there are 256 classes"),
        (np.array([[0, 1], [65535, 1]], np.uint16), {}, r"row 1: .* found 65535 \(what -1 becomes in uint16"),
        ([[0, 2], [1, 0]], {}, "row 0: expected label vectors of 0 and 1, or -1 throughout; found 2"),
        ([[-2, -2], [1, 0]], {}, "row 0: .* found -2"),
        ([[0.5, 1], [1, 0]], {}, "row 0: expected label vectors of 0 and 1 or whole class numbers, found 0.5"),
        ([[0, 1], [np.nan, 0]], {}, "row 1: .* found nan"),
        ([0.0, np.inf], {}, "row 1: .* found inf"),
        ([1.0, 1e300], {}, "row 1: .* found 1e[+]300"),
        ([0, 3], {"classes": 3}, "row 1: expected a class number from 0 to 2, or -1 for unknown; found 3; number the"),
        ([0, 9], {"classes": 3}, "row 1: .* found 9$"),
        ([0, -2], {}, "row 1: expected a class number from 0 to 0, or -1 for unknown; found -2"),
        (
            [1, 99999999999],
            {},
            "row 1: found class number 99999999999; above 99999 the number of classes must be declared",
        ),
        ([1, 2], {"classes": 10**11}, "need 186 GiB as label vectors"),
        (np.array([1, 2**64 - 1], np.uint64), {}, "row 1: found class number 18446744073709551615, which is what -1"),
        ([[1, 0, 1]], {"classes": 4}, "expected label vectors of 4 labels, found 3"),
        ([[1, 0]], {"declared": "classes"}, r"expected class numbers \(N,\) or \(N, 1\), as declared; found \(1, 2\)"),
        ([1, 0], {"declared": "vectors"}, r"label vectors of one label are \(N, 1\)"),
        ([[3], [0]], {"declared": "vectors"}, "row 0: expected label vectors of 0 and 1, or -1 throughout; found 3"),
        ([], {}, r"at least one row; found shape \(0,\)"),
        (np.zeros((4, 0), int), {}, r"found shape \(4, 0\)"),
        (np.zeros((2, 3, 1), int), {}, r"found shape \(2, 3, 1\)"),
        (np.int64(3), {}, r"found shape \(\)"),
        (["cat", "dog"], {}, "expected whole numbers, found an array of <U3; number the classes from 0"),
        (np.array([1, None]), {}, "found an array of object"),
        ([1 + 2j], {}, "found an array of complex128"),
    ],
)
def test_refusals(array, keywords, message):
    with pytest.raises(LabelError, match=message):
        vectors(array, **keywords)


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(LabelError, match=r"rows of different lengths|found an array of object"):  # numpy 1.19: object
        vectors([[1, 0], [1]])


def test_where_may_be_a_function_of_the_row():
    with pytest.raises(LabelError, match=r"^list.txt:8: .* found 2$"):
        vectors([[0, 1], [2, 0]], where=lambda row: "list.txt" if row is None else f"list.txt:{row + 7}")


def test_one_hot():
    assert labels.one_hot(1, 3, "x").tolist() == [0, 1, 0]
    assert labels.one_hot(-1, 2, "x").tolist() == [-1, -1]
    for number in (3, -2):
        with pytest.raises(LabelError, match=f"^x: expected a class number from 0 to 2, or -1 .* found {number}"):
            labels.one_hot(number, 3, "x")


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 1, 1), (3, 1, 1, 2)])
def test_a_batch_of_label_vectors_keeps_its_type(shape):
    batch = np.array([[1, 0], [-1, -1], [1, 1]], np.float32)
    table = labels.check_batch(batch.reshape(shape), "It")
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, batch)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 1, 1, 1)])
def test_a_batch_of_declared_class_numbers(shape):
    numbers = np.array([7, 0, 7, -1, 3], np.float32)
    table = labels.check_batch(numbers.reshape(shape), "It", "classes")
    known = numbers >= 0
    np.testing.assert_array_equal(table @ table.T > 0, (numbers[:, None] == numbers) & known | ~known[:, None] & ~known)
    np.testing.assert_array_equal((table == -1).all(axis=1), ~known)
    assert labels.check_batch(np.zeros((2, 1)), "It", "classes").tolist() == [[1, 0], [1, 0]]


def test_a_batch_of_one_label():
    batch = np.array([[1], [0], [-1]], np.float32)
    np.testing.assert_array_equal(labels.check_batch(batch.reshape(3, 1, 1, 1), "It", "vectors"), batch)


@pytest.mark.parametrize(
    "batch, declared, message",
    [
        (
            np.zeros(4),
            None,
            r"^It: expected label vectors \(B, C\) in bottom\[1\], found class numbers \(B,\): \(4,\)\. "
            r"Write param_str: '\{\"labels\": \"classes\"\}'",
        ),
        (np.zeros(4), "vectors", r"found class numbers \(B,\): \(4,\)"),
        (
            np.zeros((4, 1)),
            None,
            r'found one value an image: \(4, 1\)\. .* \{"labels": "vectors"\} for label vectors of',
        ),
        (np.zeros((4, 1, 1, 1)), None, r"found one value an image: \(4, 1, 1, 1\)"),
        (
            np.zeros((4, 2)),
            "classes",
            r'expected class numbers \(B,\) or \(B, 1\), as "labels": "classes" says; found '
            r"\(4, 2\)",
        ),
        (np.zeros((4, 1, 5, 5)), None, r"expected label vectors \(B, C\) in bottom\[1\], found \(4, 1, 5, 5\)"),
        (np.array([[1, 0], [1, 4.0]]), None, r"^It: bottom\[1\], row 1: .* found 4"),
        (np.array([[1, 0], [0.5, 1]]), None, r"^It: bottom\[1\], row 1: .* found 0.5"),
        (np.array([[1, 0], [1, -1.0]]), None, r"row 1: .* Write 0 where"),
        (np.array([[1], [3.0]]), "vectors", "row 1: .* found 3"),
        (np.array([1, -3.0]), "classes", "row 1: expected a class number from 0, or -1 for unknown; found -3"),
        (np.array([1, 1.5]), "classes", "row 1: .* found 1.5"),
    ],
)
def test_refused_batches(batch, declared, message):
    with pytest.raises(LabelError, match=message):
        labels.check_batch(batch, "It", declared)
