"""HDF5Data and HDF5Output, through nets: a dataset is found by its top's name."""

import caffe
import h5py
import numpy as np
import pytest


@pytest.fixture
def net(tmp_path):
    """A net from the text of its layers."""

    def make(text, phase=caffe.TRAIN):
        (tmp_path / "net.prototxt").write_text(text)
        return caffe.Net(str(tmp_path / "net.prototxt"), phase)

    return make


@pytest.fixture
def files(tmp_path):
    """Write HDF5 files, each a dict of arrays, and their list; gives the list's path."""

    def write(*contents):
        paths = []
        for index, datasets in enumerate(contents):
            paths.append(tmp_path / f"{index}.h5")
            with h5py.File(paths[-1], "w") as file:
                for name, values in datasets.items():
                    file[name] = values
        (tmp_path / "list.txt").write_text("\n".join(map(str, paths)) + "\n\n")
        return tmp_path / "list.txt"

    return write


def data(source, batch, fields="", tops=("data", "label")):
    named = " ".join(f'top: "{top}"' for top in tops)
    return (
        f'layer {{ name: "it" type: "HDF5Data" {named} '
        f'hdf5_data_param {{ source: "{source}" batch_size: {batch} {fields} }} }}'
    )


def rows(start, count):
    values = np.arange(start, start + count)
    return {"data": values[:, None, None] + np.array([[0, 0.25], [0.5, 0.75]]), "label": values.astype(np.int64)}


@pytest.mark.parametrize("batch", [1, 3, 5, 12])
def test_rows_of_all_files_in_order_and_over_again(net, files, batch):
    it = net(data(files(rows(0, 4), rows(4, 1), rows(5, 2)), batch))
    assert it.blobs["data"].shape == (batch, 2, 2) and it.blobs["label"].shape == (batch,)
    expected = np.resize(np.arange(7), 24)
    for step in range(24 // batch):
        it.forward()
        labels = expected[step * batch : (step + 1) * batch]
        np.testing.assert_array_equal(it.blobs["label"].data, labels)
        np.testing.assert_array_equal(it.blobs["data"].data[:, 1, 0], labels + 0.5)


def test_a_top_reads_the_dataset_of_its_name(net, files):
    it = net(data(files(rows(3, 2)), 2, tops=("label",)))
    assert it.forward()["label"].tolist() == [3, 4]


def test_shuffle_draws_each_round_anew(net, files):
    caffe.set_random_seed(4)
    it = net(data(files(rows(0, 6), rows(6, 6)), 12, "shuffle: true"))
    rounds = []
    for _ in range(8):
        labels = it.forward()["label"].copy()
        np.testing.assert_array_equal(it.blobs["data"].data[:, 0, 1], labels + 0.25)
        assert sorted(labels) == list(range(12))
        assert len({label < 6 for label in labels[:6]}) == 1  # file after file
        rounds.append(tuple(labels))
    assert len(set(rounds)) == 8
    assert len({labels[0] < 6 for labels in rounds}) == 2  # either file comes first


@pytest.mark.parametrize("rank", [0, 1])
def test_solvers_side_by_side_share_the_rows(net, files, monkeypatch, rank):
    monkeypatch.setattr("caffe.parallel.solver_count", lambda: 2)
    monkeypatch.setattr("caffe.parallel.solver_rank", lambda: rank)
    text = data(files(rows(0, 5)), 3)
    assert net(text).forward()["label"].tolist() == [[0, 2, 4], [1, 3, 0]][rank]
    assert net(text, caffe.TEST).forward()["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "contents, said",
    [
        ([], "Must have at least 1 HDF5 filename listed"),
        ([{"data": [1.0]}], "Failed to find HDF5 dataset label in .*; the file has data"),
        ([{"data": [1.0], "label": ["a"]}], "Unsupported datatype class of label"),
        ([{"data": [1.0], "label": 3.0}], "must have at least 1 axis; dataset label is one value"),
        ([{"data": [1.0, 2.0], "label": [1.0]}], "expected datasets of as many rows as data, 2; label has 1"),
        ([{"data": np.zeros((0, 2)), "label": np.zeros(0)}], "expected at least one row in data, found none"),
    ],
)
def test_refuses_files(net, files, contents, said):
    with pytest.raises(ValueError, match=said):
        net(data(files(*contents), 1))


def test_refusals(net, files, tmp_path):
    with pytest.raises(ValueError, match=r"Failed to open source file: .*no.txt: No such file"):
        net(data(tmp_path / "no.txt", 1))
    with pytest.raises(ValueError, match="HDF5Data does not transform data"):
        net(data(files(rows(0, 2)), 1)[:-1] + "transform_param { scale: 2 } }")
    with pytest.raises(ValueError, match="batch_size must be positive; found 0"):
        net(data(files(rows(0, 2)), 0))
    (tmp_path / "list.txt").write_text(f"\n{tmp_path}/gone.h5")
    with pytest.raises(ValueError, match=r"list.txt:2: Failed opening HDF5 file: .*gone.h5: No such file"):
        net(data(tmp_path / "list.txt", 1))


def test_a_later_file_must_have_rows_of_the_same_shape(net, files):
    it = net(data(files(rows(0, 2), {"data": np.zeros((2, 3)), "label": np.zeros(2)}), 2))
    with pytest.raises(
        ValueError, match=r"1.h5: expected rows of the shapes \[\(2, 2\), \(\)\].* found \[\(3,\), \(\)\]"
    ):
        it.forward()


OUTPUT = """
layer { name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 3 dim: 2 dim: 4 } shape { dim: %d } } }
layer { name: "it" type: "HDF5Output" bottom: "x" bottom: "y" hdf5_output_param { file_name: "%s" } }
"""


def test_output(net, tmp_path):
    path = tmp_path / "out.h5"
    it = net(OUTPUT % (3, path))
    with h5py.File(path) as file:
        assert not list(file)
    x, y = np.arange(24, dtype=np.float32).reshape(3, 2, 4), np.array([5, 6, 7], np.float32)
    it.blobs["x"].data[...], it.blobs["y"].data[...] = x, y
    it.forward()
    with h5py.File(path) as file:
        assert {name: values.shape for name, values in file.items()} == {"data": (3, 2, 4, 1), "label": (3, 1, 1, 1)}
        np.testing.assert_array_equal(file["data"][..., 0], x)
        np.testing.assert_array_equal(file["label"][:, 0, 0, 0], y)
    with pytest.raises(ValueError, match=r"Failed to make float dataset data: .*out.h5 holds the batch"):
        it.forward()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][..., 0], x)  # what was written is still there


def test_output_refusals(net, tmp_path):
    with pytest.raises(ValueError, match="data blob and label blob must have the same batch size"):
        net(OUTPUT % (2, tmp_path / "out.h5")).forward()
    with pytest.raises(ValueError, match=r"Failed to open HDF5 file '.*no/out.h5' for writing: No such file"):
        net(OUTPUT % (3, tmp_path / "no/out.h5"))
