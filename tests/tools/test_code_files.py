"""Codes and labels in the files of others: .npz, .npy, .mat, .h5, text; and files that are damaged or hostile."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from dhn.codes import matlab_tags
from dhn.codes.array_files import CodesError
from dhn.experiments import metrics
from dhn.scoring import retrieval

CLASSES, BITS = 4, 16


def draw(count, seed):
    rng = np.random.default_rng(seed)
    classes = np.arange(count) % CLASSES
    centres = np.random.default_rng(9).standard_normal((CLASSES, BITS))
    return centres[classes] + 1.5 * rng.standard_normal((count, BITS)), classes


SIDES = {"query": draw(12, 1), "database": draw(60, 2)}
VECTORS = {side: np.eye(CLASSES)[classes] for side, (_, classes) in SIDES.items()}
TRUTH = retrieval.score(*(part for side, (values, _) in SIDES.items() for part in (values, VECTORS[side])))["map"]


def matlab_7_3(path, **arrays):
    """An HDF5 file as MATLAB's save -v7.3 writes it: axes reversed, classes as attributes, a header of 512 bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            if isinstance(values, str):
                file[name] = np.frombuffer(values.encode("utf-16-le"), np.uint16)[:, None]
            elif scipy.sparse.issparse(values):
                file.create_group(name).attrs["MATLAB_sparse"] = values.shape[0]
            else:
                file[name] = values.T.astype(np.uint8) if values.dtype == bool else values.T
            kinds = {"f": "double", "i": "int64", "u": "uint8", "b": "logical"}
            kind = "char" if isinstance(values, str) else kinds[values.dtype.kind]
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
        file.create_group("#refs#")
    with open(path, "r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\0\2IM")


def hdf5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def matlab(path, **arrays):
    scipy.io.savemat(path, arrays, do_compression=True)


def matlab_4(path, **arrays):
    scipy.io.savemat(path, {name: np.asarray(values, float) for name, values in arrays.items()}, format="4")


@pytest.mark.parametrize(
    ("write", "suffix"),
    [(np.savez_compressed, "npz"), (matlab, "mat"), (matlab_4, "mat"), (matlab_7_3, "mat"), (hdf5, "h5"),
     (hdf5, "dat")],
    ids=["npz", "mat", "mat 4", "mat 7.3", "h5", "h5 of another name"],
)  # fmt: skip
def test_codes_and_labels_in_one_file(tmp_path, write, suffix):
    files = []
    for side, (values, classes) in SIDES.items():
        files.append(str(tmp_path / f"{side}.{suffix}"))
        write(files[-1], codes=values, labels=(classes + 1)[:, None])
    scores = metrics.score_files(*files)[0]
    assert scores["map"] == TRUTH
    assert scores["read_as"] == {"codes": "sign", "labels": f"class numbers, {CLASSES} classes"}


def test_names_of_arrays_are_shown_without_what_a_terminal_obeys(tmp_path):
    path = tmp_path / "damaged.npz"
    np.savez(path, **{"x\n" * 40: np.zeros(2), "b": np.zeros(2)})
    with pytest.raises(
        CodesError, match=r"damaged\.npz: expected the arrays codes and labels, found '.{1,80}', b; name"
    ):
        metrics.score_files(path, path)


@pytest.mark.parametrize("write", [matlab, matlab_7_3, hdf5, np.savez], ids=["mat", "mat 7.3", "h5", "npz"])
def test_arrays_of_any_name_in_one_file(tmp_path, write):
    path = str(tmp_path / "x.mat")
    if write is np.savez:
        path = str(tmp_path / "x.npz")
    more = {"note": "codes of a net"} if write in (matlab, matlab_7_3) else {}
    (query, _), (database, _) = SIDES.values()
    logical = VECTORS["query"] == 1  # MATLAB has logical arrays
    write(path, qB=query >= 0, rB=database >= 0, qL=logical, rL=VECTORS["database"], **more)
    scores = metrics.score_files(
        f"{path}:qB", f"{path}:rB", query_labels=f"{path}:qL", database_labels=f"{path}:rL", codes_are="01"
    )[0]
    assert scores["map"] == TRUTH
    with pytest.raises(CodesError, match=r"expected the array B, found .*qL.*"):
        metrics.score_files(f"{path}:B", path, query_labels=f"{path}:qL")
    with pytest.raises(CodesError, match="found qB alone; name the file of its labels with --query-labels"):
        metrics.score_files(f"{path}:qB", f"{path}:rB")
    with pytest.raises(CodesError, match="name others as FILE:VARIABLE"):
        metrics.score_files(path, path)


def test_codes_and_labels_in_files_of_their_own(tmp_path):
    """Any form of the one with any of the other; a text of one number a line is of class numbers."""
    for side, (values, classes) in SIDES.items():
        np.save(tmp_path / f"{side}.npy", values)
        np.savetxt(tmp_path / f"{side}.txt", values)
        np.savetxt(tmp_path / f"{side}.csv", values, delimiter=",", header="codes")
        (tmp_path / f"{side}.tsv").write_bytes(
            b"\xef\xbb\xbf" + b"\r\n".join(b"\t".join(b"%.9g" % value for value in row) for row in values)
        )
        np.save(tmp_path / f"{side}_labels.npy", VECTORS[side])
        np.savetxt(tmp_path / f"{side}_labels.txt", classes, "%d")
        np.savetxt(tmp_path / f"{side}_labels.csv", VECTORS[side], "%d", delimiter=", ")
        matlab(tmp_path / f"{side}_labels.mat", truth=classes[:, None].astype(np.uint8))
        codes_of = [tmp_path / f"{side}.{suffix}" for suffix in ("npy", "txt", "csv", "tsv")]
        labels_of = [tmp_path / f"{side}_labels.{suffix}" for suffix in ("npy", "txt", "csv", "mat")]
    for codes_file in codes_of:
        for labels_file in labels_of:
            query, query_labels = (str(path).replace("database", "query") for path in (codes_file, labels_file))
            scores = metrics.score_files(
                query, str(codes_file), query_labels=query_labels, database_labels=str(labels_file)
            )[0]
            assert scores["map"] == TRUTH, (codes_file.name, labels_file.name)
            classes = labels_file.suffix in (".txt", ".mat")
            assert scores["read_as"]["labels"] == (f"class numbers, {CLASSES} classes" if classes else "label vectors")
    with pytest.raises(CodesError, match=r"query.npy: expected the arrays codes and labels, found a single array"):
        metrics.score_files(str(tmp_path / "query.npy"), str(tmp_path / "database.npy"))


def refusal(path, labels=None):
    with pytest.raises(CodesError) as error:
        metrics.score_files(str(path), str(path), query_labels=labels, database_labels=labels)
    message = str(error.value)
    assert message.count("\n") == 0 and "pickle=" not in message and "header_size" not in message
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1 1\n1 x\n", "x.txt:2: expected numbers separated by blanks, tabs or commas; found 'x'"),
        ("-1 1\n\n# no\n1\n", "x.txt:4: expected 2 numbers as in the first row, found 1"),
        ("-1,,1", "x.txt:1: expected numbers separated by blanks, tabs or commas; found an empty field"),
        ("-1;1", "x.txt:1: expected numbers separated by blanks, tabs or commas; found '-1;1'"),
        ("-0,5 0,3", "x.txt:1: expected numbers separated by blanks, tabs or commas; found '5 0'"),
        ("1_0 1", "x.txt:1: expected numbers separated by blanks, tabs or commas; found '1_0'"),
        ("²", "x.txt:1: expected numbers separated by blanks, tabs or commas; found '²'"),
        ("b0,b1\n-1,1\n", "x.txt:1: expected numbers separated by blanks, tabs or commas; found 'b0'"),
        ("# nothing\n", "x.txt: expected numbers, found none"),
        ("", "x.txt: expected numbers, found none"),
    ],
)
def test_text_that_is_no_table_of_numbers_is_named_by_line(tmp_path, text, message):
    path = tmp_path / "x.txt"
    path.write_text(text)
    assert message in refusal(path, str(path))


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.ones(5), np.ones((5, 2)), "expected codes (N, bits), a row an item, found (5,); one code is (1, bits)"),
        (np.ones((2, 3, 4)), np.ones((2, 2)), "expected codes to be rows by columns, at least one of each; found"),
        (np.ones((0, 4)), np.ones((0, 2)), "expected codes to be rows by columns, at least one of each; found (0, 4)"),
        (np.ones((4, 6)), np.ones((6, 2)), "(codes (4, 6), labels (6, 2)); are the codes transposed?"),
        (np.ones((6, 4)), np.ones((2, 6)), "(codes (6, 4), labels (2, 6)); are the labels transposed?"),
        (np.ones((4, 6)), np.ones((2, 6)), "(codes (4, 6), labels (2, 6)); are both transposed?"),
        (np.ones((4, 6)), np.ones((5, 2)), "expected as many labels as codes, found 4 codes, 5 labels (codes (4, 6)"),
        (np.ones((2, 6)) * 1j, np.ones((2, 2)), "codes to be an array of numbers, found complex numbers (complex128)"),
        (np.array([["1", "0"]]), np.ones((1, 2)), "expected codes to be an array of numbers, found text"),
        (np.array([[None]]), np.ones((1, 2)), "found Python objects, which are not loaded here"),
        (np.zeros(2, [("a", "f4")]), np.ones((2, 2)), "expected codes to be an array of numbers, found records"),
    ],
    ids=[
        "one axis",
        "three axes",
        "no rows",
        "codes",
        "labels",
        "both",
        "rows",
        "complex",
        "text",
        "objects",
        "records",
    ],
)
def test_arrays_that_cannot_be_codes_are_named(tmp_path, values, labels, message):
    np.savez(tmp_path / "x.npz", codes=values, labels=labels)
    found = refusal(tmp_path / "x.npz")
    assert found.startswith(f"{tmp_path}/x.npz: ") and message in found


def test_what_matlab_holds_besides_numbers_is_named(tmp_path):
    cells = np.empty((2, 1), object)
    cells[:] = 1.0
    others = {"cell": cells, "struct": {"a": 1.0}, "char": "text", "sparse": scipy.sparse.csc_matrix(np.eye(2))}
    arrays = {f"{name}s": value for name, value in others.items()}
    scipy.io.savemat(tmp_path / "x.mat", {**arrays, "labels": np.eye(2), "z": np.eye(2) * 1j})
    for name, words in {**{f"{name}s": f"a MATLAB {name}" for name in others}, "z": "complex numbers"}.items():
        found = refusal(f"{tmp_path}/x.mat:{name}", f"{tmp_path}/x.mat:labels")
        assert f"x.mat: expected codes to be an array of numbers, found {words}" in found
    matlab_7_3(tmp_path / "y.mat", chars="text", sparses=scipy.sparse.csc_matrix(np.eye(2)), labels=np.eye(2))
    for name in ("char", "sparse"):
        assert f"found a MATLAB {name}" in refusal(f"{tmp_path}/y.mat:{name}s", f"{tmp_path}/y.mat:labels")


@pytest.mark.parametrize("kind", [b"\x7f\xff\xff\xff", b"\x0f\0\0\0", b"\x0e\0\0\0", b"\x0a\0\0\0"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_matlab_file_whose_data_have_no_type_is_refused(tmp_path, compressed, kind):
    """scipy would read beyond a table's end, or in its gaps, and the process would end by a signal."""
    scipy.io.savemat(tmp_path / "x.mat", {"codes": np.eye(9, 8), "labels": np.eye(9)})
    raw = bytearray((tmp_path / "x.mat").read_bytes())
    size = int.from_bytes(raw[132:136], "little")  # of the first array; its data begin with their type, 9: double
    at = raw.index((9).to_bytes(4, "little") + (9 * 8 * 8).to_bytes(4, "little"), 128, 136 + size)
    raw[at : at + 4] = kind
    if compressed:
        packed = zlib.compress(raw[128 : 136 + size])
        raw[128 : 136 + size] = struct.pack("<2I", 15, len(packed)) + packed
    (tmp_path / "x.mat").write_bytes(raw)
    assert "x.mat: is not a .mat file, or not a complete one; write it again" in refusal(tmp_path / "x.mat")


@pytest.mark.parametrize(("at", "value"), [(145, 8), (140, 4), (136, 5)])
def test_a_matlab_matrix_that_lacks_a_part_is_refused(tmp_path, at, value):
    """Of complex numbers without the imaginary ones scipy would read the next matrix as those, and end by a signal."""
    scipy.io.savemat(tmp_path / "x.mat", {"codes": np.eye(9, 8), "labels": np.eye(9)})
    raw = bytearray((tmp_path / "x.mat").read_bytes())
    raw[at] = value
    (tmp_path / "x.mat").write_bytes(raw)
    assert "x.mat: is not a .mat file, or not a complete one; write it again" in refusal(tmp_path / "x.mat")


def test_scipys_own_matlab_files_pass():
    """What it reads has tags that are in order: cells, structures, text, either order of bytes, compressed or not."""
    folder = Path(scipy.io.matlab.__file__).parent / "tests" / "data"
    if not folder.exists():
        pytest.skip("scipy is installed without its tests")
    passed = 0
    for path in sorted(folder.glob("*.mat")):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scipy.io.loadmat(path)
        except Exception:  # of those that are damaged on purpose
            continue
        matlab_tags.check(str(path))
        passed += 1
    assert passed > 80


def header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(64)


@pytest.mark.parametrize("shape", [(10**12, 48), (10**12,), (2**62, 4), (-5, 48), (10**30, 3)])
def test_a_header_that_claims_more_than_the_file_holds_costs_no_memory(tmp_path, shape):
    (tmp_path / "x.npy").write_bytes(header(shape))
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("codes.npy", header(shape))
        archive.writestr("labels.npy", header((*shape[:1], 4)))
    assert "x.npz: is not an .npz file, or not a complete one; write it again" in refusal(tmp_path / "x.npz")
    assert "x.npy: is not an .npy file, or not a complete one" in refusal(tmp_path / "x.npy", str(tmp_path / "x.npy"))


def test_a_directory_without_all_arrays_is_refused(tmp_path):
    """A comment that is said to reach over the entries behind it: zipfile reads one array and says nothing."""
    np.savez(tmp_path / "x.npz", codes=np.eye(4, 8), labels=np.eye(4), labels_are=np.array("vectors"))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    at = raw.rindex(b"PK\1\2", 0, raw.rindex(b"PK\1\2")) + 32  # of the entry before the last
    raw[at : at + 2] = b"\xff\xff"
    (tmp_path / "x.npz").write_bytes(raw)
    assert "x.npz: is not an .npz file, or not a complete one; write it again" in refusal(tmp_path / "x.npz")


def test_an_array_larger_than_the_memory_is_not_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:  # not a chunk of it is stored
        for name in ("codes", "labels"):
            file.create_dataset(name, (10**12, 48), "f4", chunks=(1000, 48))
    assert "codes (1000000000000, 48) would take 192,000 GB, this machine has" in refusal(tmp_path / "x.h5")


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    values, labels = np.linspace(-1, 1, 480).reshape(40, 12), np.eye(4)[np.arange(40) % 4]
    matlab(tmp_path / "a.mat", codes=values, labels=labels)
    matlab_4(tmp_path / "b.mat", codes=values, labels=labels)
    matlab_7_3(tmp_path / "c.mat", codes=values, labels=labels)
    hdf5(tmp_path / "d.h5", codes=values, labels=labels)
    np.savez(tmp_path / "e.npz", codes=values, labels=labels)
    np.savez_compressed(tmp_path / "f.npz", codes=values, labels=labels)
    for path in sorted(tmp_path.iterdir()):
        content = path.read_bytes()
        for length in (0, 1, 10, 130, len(content) // 2, len(content) - 9):
            part = path.with_name(f"part{path.suffix}")
            part.write_bytes(content[:length])
            assert f"part{path.suffix}: " in refusal(part), (path.name, length)


def test_nothing_in_a_file_is_executed(tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Harm()))
    np.savez(tmp_path / "x.npz", codes=np.array([[Harm()]], object), labels=np.ones((1, 2)))
    text = f"{{'descr': __import__('os').mkdir({str(tmp_path / 'harm')!r}), 'shape': (3,), 'fortran_order': False}}"
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())
    (tmp_path / "long.npy").write_bytes(b"\x93NUMPY\x02\x00" + (10**6).to_bytes(4, "little") + b" " * 10**6)
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Harm()))
    assert "found Python objects (a pickle), which are not loaded here" in refusal(tmp_path / "x.pkl")
    assert "found Python objects, which are not loaded here" in refusal(tmp_path / "x.npz")
    assert "is not an .npy file" in refusal(tmp_path / "x.npy", str(tmp_path / "x.npy"))
    assert "is not an .npy file" in refusal(tmp_path / "long.npy", str(tmp_path / "long.npy"))
    assert "expected the arrays codes and labels, found none" in refusal(tmp_path / "x.pt")
    assert not (tmp_path / "harm").exists()


def test_paths_that_are_no_files(tmp_path):
    assert "cannot be read (Is a directory)" in refusal(tmp_path)
    assert "none.mat: cannot be read (No such file or directory)" in refusal(tmp_path / "none.mat")
    assert "cannot be read" in refusal("none.mat:codes", "none.mat:labels")
    assert "cannot be read (a file's name holds no NUL)" in refusal("a\0b")
    (tmp_path / "x.bin").write_bytes(bytes(range(256)))
    assert "x.bin: expected .npz, .npy, .mat, .h5 or a text of numbers, found none of these" in refusal(
        tmp_path / "x.bin"
    )
    values, labels = SIDES["query"][0], VECTORS["query"]
    np.savez(tmp_path / "a:b.npz", codes=values, labels=labels)  # a colon in a file's name
    assert metrics.score_files(*[str(tmp_path / "a:b.npz")] * 2)[0]["queries"] == len(values)
