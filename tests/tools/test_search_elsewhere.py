"""The commands on the other backends: build_index.py writes a LanceDB and a file of faiss, search.py asks the first."""

from __future__ import annotations

import sys

import build_index
import numpy as np
import pytest
import search
from dhn.codes import files as codes
from dhn.search.backends import lance


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Codes of 48 bits with labels: 80 in database.npz, 10 others in more.npz."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((90, 48)).astype(np.float32)
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 90)]
    codes.save("database.npz", values[:80], labels[:80])
    codes.save("more.npz", values[80:], labels[80:])
    return tmp_path


def build(*words):
    return build_index.main(list(words))


def ask(capsys, *words):
    assert search.main([*words, "--json"]) == 0
    return capsys.readouterr().out


def test_a_lancedb_answers_as_an_index_folder_does(folder, capsys):
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    for place in (["--out", "index"], ["--backend", "lancedb", "--uri", "lance"]):
        assert build("--codes", "database.npz", *place) == 0
        assert build("--codes", "more.npz", "--append", *place) == 0
        assert build("--delete", "00000001", "00000085", *place) == 0
    assert "lance: 2 removed; 88 items, codes of 48 bits" in capsys.readouterr().out
    for words in (["--codes", "more.npz"], ["--key", "00000007"], ["--key", "00000089", "--label", "2", "--top", "99"]):
        assert ask(capsys, "index", *words) == ask(capsys, "lance", *words)
    assert search.main(["lance", "--key", "00000001"]) == 1
    assert "lance: expected the key of one of its 88 items, found '00000001'" in capsys.readouterr().err
    assert search.main(["lance", "--key", "00000002", "--html", "page.html"]) == 1
    assert build("--codes", "database.npz", "--backend", "lancedb", "--uri", "lance") == 0  # replaced
    assert lance.Lance.open("lance").count() == 80


def test_a_file_of_faiss_has_the_rows_as_ids(folder, capsys):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    assert build("--codes", "database.npz", "--backend", "faiss", "--out", "codes.faiss") == 0
    assert "codes.faiss: 80 codes of 48 bits" in capsys.readouterr().out
    values, _ = codes.load("database.npz")
    bits = np.packbits(values >= 0, axis=1, bitorder="little")
    queries = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    distances, ids = faiss.read_index_binary("codes.faiss").search(queries, 5)
    expected = (values[:, None] >= 0) != (values[None] >= 0)
    order = np.argsort(expected.sum(2), axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(ids, order)
    np.testing.assert_array_equal(distances, np.take_along_axis(expected.sum(2), order, 1))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backend", "lancedb", "--out", "x"], "--backend lancedb goes with --uri"),
        (["--uri", "x"], "--backend lancedb goes with --uri"),
        (["--backend", "lancedb", "--uri", "x", "--out", "y"], "--out does not go with --uri"),
        (["--backend", "faiss"], "--backend faiss goes with --out X.faiss"),
        (["--backend", "faiss", "--out", "x", "--append"], "--backend faiss goes with --out X.faiss"),
    ],
)
def test_options_that_contradict_each_other(folder, capsys, words, text):
    with pytest.raises(SystemExit):
        build("--codes", "database.npz", *words)
    assert text in capsys.readouterr().err


def test_what_is_not_installed_is_named(folder, capsys, monkeypatch):
    for name, place in (("lancedb", ["--uri", "x"]), ("faiss", ["--out", "x"])):
        monkeypatch.setitem(sys.modules, name, None)
        assert build("--codes", "database.npz", "--backend", name, *place) == 1
        assert f"pip install 'dhn-caffe-toolkit[{name}]'" in capsys.readouterr().err
