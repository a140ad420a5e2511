"""The list parser: what a line is, whatever its path holds, and what it says of lines that are none."""

from pathlib import Path

import image_lists
import pytest
from caffe.data.databases import read_list
from image_lists import ImageList, ListError


def read(tmp_path, data, **keywords):
    path = tmp_path / "list.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return image_lists.read(path, **keywords)


@pytest.mark.parametrize(
    "data, names, labels",
    [
        ("a.png 1 0 1\nb/c.jpg 0 0 0\n", ["a.png", "b/c.jpg"], [[1, 0, 1], [0, 0, 0]]),
        ("a.png 3\nb.png -1", ["a.png", "b.png"], [[3], [-1]]),
        ("a.png 0\nb.png 0\n", ["a.png", "b.png"], [[0], [0]]),
        ("a.png -1 -1\nb.png +1 -1\n", ["a.png", "b.png"], [[-1, -1], [1, -1]]),
        ("a.png 1 0\r\nb.png 0 1\r\n", ["a.png", "b.png"], [[1, 0], [0, 1]]),
        ("a.png 1\rb.png 0\r", ["a.png", "b.png"], [[1], [0]]),
        (b"\xef\xbb\xbfa.png 1\n", ["a.png"], [[1]]),
        ("my  photo 3.jpg 1 0\n c d .png\t0  1 \t\n", ["my  photo 3.jpg", "c d .png"], [[1, 0], [0, 1]]),
        ("\n  \na.png 1\n\t\n\r\nb.png 2\n", ["a.png", "b.png"], [[1], [2]]),
        ("/x/y.png 1\n", ["/x/y.png"], [[1]]),
        ("17 4\n18 5\n", ["17", "18"], [[4], [5]]),  # rows of an array
        ("é\u2003ü\u00a0.png 1\n\u2028\x85.png 2\n", ["é\u2003ü\u00a0.png", "\u2028\x85.png"], [[1], [2]]),
        (b"caf\xe9.png 1\n", ["caf\udce9.png"], [[1]]),
        ("#a.png 1\n", ["#a.png"], [[1]]),
    ],
)
def test_lists(tmp_path, data, names, labels):
    assert read(tmp_path, data)[:2] == (names, labels)


@pytest.mark.parametrize(
    "data",
    ["a.png 3\nb.png -1\n", "my  photo 3.jpg 1\r\nb c.png 0\r\n", "\n/x/y.png 12\n\nz.png 0", b"caf\xe9.png 1\n"],
)
def test_the_engine_reads_ordinary_class_lists_alike(tmp_path, data):
    found = read(tmp_path, data)
    engine = [(name, [label], line) for name, label, line in read_list(str(tmp_path / "list.txt"))]
    assert engine == list(zip(*found, strict=True))


@pytest.mark.parametrize("data", ["a.png 1 0 1\nb/c.jpg 0 0 0\n", "my photo 3.jpg 1 0 -1\r\n\r\nb.png -1 -1 -1\r\n"])
def test_the_engine_reads_lists_of_label_vectors_alike(tmp_path, data):
    found = read(tmp_path, data)
    assert read_list(str(tmp_path / "list.txt"), 3) == list(zip(*found, strict=True))


def test_the_lines_are_numbered_as_in_the_file(tmp_path):
    assert read(tmp_path, "\na.png 1\n\nb.png 2\n") == ImageList(["a.png", "b.png"], [[1], [2]], [2, 4])


def test_bytes_that_are_no_utf_8_still_name_the_file(tmp_path):
    name = read(tmp_path, b"caf\xe9.png 1\n").names[0]
    (tmp_path / name).write_bytes(b"here")
    assert (tmp_path / name).name.encode(errors="surrogateescape") == b"caf\xe9.png"
    assert Path(image_lists.locate(tmp_path, name)).read_bytes() == b"here"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1252", "UTF-8"])
def test_declared_encoding(tmp_path, encoding):
    assert read(tmp_path, "café.png 1\n".encode(encoding), encoding=encoding)[:2] == (["café.png"], [[1]])


def test_lists_without_labels(tmp_path):
    assert read(tmp_path, "a.png\nmy b.png\n", labels="optional") == ImageList(["a.png", "my b.png"], [[], []], [1, 2])
    assert read(tmp_path, "a.png 1\nb.png 2\n", labels="optional").labels == [[1], [2]]


@pytest.mark.parametrize(
    "data, keywords, message",
    [
        ("", {}, "list.txt: expected at least one line `path l1 ... lC` or `path label`, found none"),
        (b"\xef\xbb\xbf\r\n", {}, "expected at least one line"),
        ("a.png\n", {}, r"list.txt:1: expected a path and its labels \(whole numbers, .*\), found 0 in 'a.png'"),
        ("5\n", {}, "list.txt:1: expected a path and its labels"),
        ("a.png x\n", {}, "list.txt:1: .* found 0 in 'a.png x'"),
        ("a.png 1,0\n", {}, "list.txt:1: .* found 0 in 'a.png 1,0'"),
        ("a.png,1\n", {}, "list.txt:1: .* found 0 in 'a.png,1'"),
        ("a.png 2.0\n", {}, "list.txt:1: .* found 0 in 'a.png 2.0'"),
        ("a.png ²\n", {}, "list.txt:1: .* found 0"),
        ("a.png ٣\n", {}, "list.txt:1: .* found 0"),
        ("a.png 1_0\n", {}, "list.txt:1: .* found 0"),
        (f"a.png {'9' * 5000}\n", {}, "list.txt:1: .* found 0"),
        (f"a.png 1\nb.png {'9' * 5000}\n", {}, "list.txt:2: .* found 0"),
        ("a.png 1\nb.png ²\n", {}, "list.txt:2: .* found 0"),
        (
            "a.png 1 0\n\nb.png 1\n",
            {},
            "list.txt:3: expected a path and 2 whole numbers, as on line 1, found 1 in 'b.png",
        ),
        ("a.png 1 0\nb.png 1 0 1\n", {}, "list.txt:2: expected a path and 2 whole numbers, as on line 1, found 3"),
        ("a.png 1\nb.png 1 0\n", {}, "list.txt:2: expected a path and 1 whole number, as on line 1, found 2"),
        ("a.png 1\nb.png\n", {}, "list.txt:2: expected a path and 1 whole number, as on line 1, found 0"),
        ("a.png\nb.png 1\n", {"labels": "optional"}, "list.txt:2: expected a path without labels, .* found 1"),
        ("a.png 1\nb.png\n", {"labels": "optional"}, "list.txt:2: expected a path and 1 whole number, .* found 0"),
        ("a.png 1\nb\0.png 1\n", {}, r"list.txt:2: .* found a NUL character in .* needs the encoding 'utf-16'"),
        ("a.png 1\n".encode("utf-16"), {}, "found the byte order mark of UTF-16; name the encoding 'utf-16'"),
        ("a.png 1\n".encode("utf-16-le"), {}, "list.txt:1: .* found a NUL character"),
        ("a.png 1\n", {"encoding": "latin-42"}, "unknown encoding 'latin-42'; expected one such as utf-8"),
        (b"a.png 1\n\n", {"encoding": "utf-16"}, "expected text in utf-16, found bytes that are none"),
    ],
)
def test_refusals(tmp_path, data, keywords, message):
    with pytest.raises(ListError, match=message):
        read(tmp_path, data, **keywords)


@pytest.mark.parametrize(
    "name, holds",
    [
        ("a.png", True),
        ("a b.png", True),
        ("17", True),
        ("é\udce9\u00a0.png", True),
        ("1 a", True),
        ("", False),
        (" a.png", False),
        ("a.png ", False),
        ("a 1", False),
        ("a\nb", False),
        ("a\0", False),
        ("\ufeffa", False),
    ],
)
def test_a_name_that_a_line_can_hold_comes_back(tmp_path, name, holds):
    assert image_lists.can_hold(name) == holds
    if holds:
        data = f"{name} 1 0\n{name} 0 1\n".encode(errors="surrogateescape")
        assert read(tmp_path, data).names == [name, name]


def test_a_missing_list_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        image_lists.read(tmp_path / "none.txt")


def test_a_leading_slash_counts_where_the_file_is(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    absolute = str(tmp_path / "a.png")
    assert image_lists.locate("", absolute) == absolute
    assert image_lists.locate("/elsewhere", absolute) == absolute
    assert image_lists.locate(tmp_path, "/a.png") == absolute
    assert image_lists.locate(tmp_path, "a.png") == absolute
    assert image_lists.locate("", "a.png") == "a.png"
    assert image_lists.locate("", "/none/a.png") == "/none/a.png"
