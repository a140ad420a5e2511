"""A training resumed from a solverstate equals the uninterrupted one to the bit, whatever the data come from."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
from pathlib import Path

import caffe
import h5py
import numpy as np
import pytest
import resume_sources as sources
from caffe import parallel, solver_state
from caffe.proto import caffe_pb2, text, wire

SOLVER = 'base_lr: 0.05 lr_policy: "fixed" max_iter: 100 momentum: 0.9 test_iter: 3 test_interval: 3 solver_mode: CPU'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    sources.write(folder)
    return folder


@pytest.fixture
def net(folder, monkeypatch):
    """The net on a source; files of another source may stand in for its own."""
    monkeypatch.syspath_prepend(str(folder))

    def make(source: str, old: str = "", new: str = "") -> str:
        if source == "leveldb":
            if not importlib.util.find_spec("plyvel"):
                pytest.skip("plyvel is not installed")
            gc.collect()  # a LevelDB is open once in a process: solvers before this one have to go
        return sources.net_text(source, folder).replace(old, new)

    return make


def solver(net: str, folder: Path, seed: int = 3, extra: str = "", filled: bool = True):
    param = text.parse(f'{SOLVER} random_seed: {seed} snapshot_prefix: "{folder}/run"', caffe_pb2.SolverParameter())
    param.MergeFrom(text.parse(extra, caffe_pb2.SolverParameter()))
    text.parse(net, param.net_param)
    made = caffe.get_solver(param)
    if filled:
        sources.fill(made)
    return made


def run(made, iterations: int) -> dict[str, np.ndarray]:
    """Train on, then test: everything that may show a difference."""
    losses = []
    for _ in range(iterations):
        made.step(1)
        losses.append(float(made.net.blobs["loss"].data))
    found = {"losses": np.array(losses)}
    for name, blobs in made.net.params.items():
        found.update({f"{name}[{i}]": blob.data.copy() for i, blob in enumerate(blobs)})
    found.update({f"history {i}": blob.data.copy() for i, blob in enumerate(made.history)})
    return {**found, "tested": np.array(made.test(0)["loss"])}


def differing(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys() and len(one) >= 8
    return [name for name in one if not np.array_equal(one[name], other[name])]


def state_of(folder: Path, iteration: int) -> Path:
    return next(folder.glob(f"run_iter_{iteration}.solverstate*"))


def snapshot_after(net: str, folder: Path, iterations: int, extra: str = "") -> Path:
    """The solverstate of a training that is gone."""
    made = solver(net, folder, extra=extra)
    made.step(iterations)
    made.snapshot()
    return state_of(folder, iterations)


def as_bvlc(path: Path) -> Path:
    """Take out of a solverstate what BVLC Caffe does not write."""
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            del file["resume state"]
    else:
        state = caffe_pb2.SolverState.FromString(path.read_bytes())
        state.DiscardUnknownFields()
        path.write_bytes(state.SerializeToString())
    return path


def as_before(path: Path) -> Path:
    """The solverstate as versions before the mark wrote it: field 10000, dataset `resume`."""
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            content = file["resume state"][...].tobytes()
    else:
        content = path.read_bytes()
    content = content[content.index(solver_state._MARK) + len(solver_state._MARK) :]
    as_bvlc(path)
    if path.suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.create_dataset("resume", data=np.frombuffer(content, np.uint8))
    else:
        path.write_bytes(path.read_bytes() + wire.header(10000, len(content)) + content)
    return path


def straight(net: str, folder: Path, before: int, after: int) -> dict[str, np.ndarray]:
    made = solver(net, folder)
    made.step(before)
    return run(made, after)


def resumed(net: str, folder: Path, path: Path, iterations: int) -> dict[str, np.ndarray]:
    made = solver(net, folder, seed=99)
    made.restore(path)
    return run(made, iterations)


@pytest.mark.parametrize("source", sources.SOURCES)
@pytest.mark.parametrize("form, at", [("BINARYPROTO", 4), ("HDF5", 5), ("BINARYPROTO", 0)])
def test_resumed_equals_uninterrupted(source, form, at, net, tmp_path):
    expected = straight(net(source), tmp_path, at, 4)
    state = snapshot_after(net(source), tmp_path, at, f"snapshot_format: {form}")
    assert differing(resumed(net(source), tmp_path, state, 4), expected) == []
    assert len(set(expected["losses"])) == 4


@pytest.mark.parametrize("source", sources.SOURCES)
def test_each_source_has_something_to_resume(source, net, tmp_path):
    """The comparison above can fail: from a state that holds what BVLC Caffe's does, the training is another."""
    expected = straight(net(source), tmp_path, 4, 4)
    state = as_bvlc(snapshot_after(net(source), tmp_path, 4))
    assert "losses" in differing(resumed(net(source), tmp_path, state, 4), expected)


OTHER_PROCESS = """
import sys
import caffe, numpy as np
from caffe.proto import caffe_pb2
param = caffe_pb2.SolverParameter.FromString(open(sys.argv[1], "rb").read())
for state in sys.argv[2:]:
    solver = caffe.get_solver(param)
    solver.restore(state)
    solver.step(4)
    np.savez(state + ".npz", *[blob.data for blob in [*solver.net.learnable_params, *solver.history]])
"""


def test_in_another_process(net, tmp_path):
    expected, states = [], []
    for form in ("BINARYPROTO", "HDF5"):
        (tmp_path / form).mkdir()
        first = solver(net("lmdb"), tmp_path / form, extra=f"snapshot_format: {form}")
        first.step(4)
        first.snapshot()
        first.step(4)
        states.append(str(state_of(tmp_path / form, 4)))
        expected.append([blob.data for blob in [*first.net.learnable_params, *first.history]])
    first.param.ClearField("random_seed")
    (tmp_path / "solver").write_bytes(first.param.SerializeToString())
    command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "solver"), *states]
    subprocess.run(command, check=True, capture_output=True)
    for state, blobs in zip(states, expected, strict=True):
        with np.load(state + ".npz", allow_pickle=False) as found:
            assert len(found) == len(blobs) == 8
            for index, values in enumerate(blobs):
                np.testing.assert_array_equal(found[f"arr_{index}"], values)


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_from_a_state_of_bvlc_the_data_begin_anew(form, net, tmp_path, capsys):
    state = as_bvlc(snapshot_after(net("lmdb"), tmp_path, 4, f"snapshot_format: {form}"))
    again = solver(net("lmdb"), tmp_path)
    capsys.readouterr()
    again.restore(state)
    assert not [line for line in capsys.readouterr().err.splitlines() if line.startswith("W")]
    again.step(1)
    assert again.iter == 5 and again.net.blobs["label"].data.tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_from_an_older_state(form, net, tmp_path):
    expected = straight(net("lmdb"), tmp_path, 4, 2)
    state = as_before(snapshot_after(net("lmdb"), tmp_path, 4, f"snapshot_format: {form}"))
    assert differing(resumed(net("lmdb"), tmp_path, state, 2), expected) == []


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_what_is_damaged_behind_the_mark_is_named(form, net, tmp_path):
    state = snapshot_after(net("lmdb"), tmp_path, 2, f"snapshot_format: {form}")
    content = bytearray(state.read_bytes())
    content[content.index(solver_state._MARK) + len(solver_state._MARK)] = 0xFF
    state.write_bytes(content)
    with pytest.raises(ValueError, match=f"{state.name}: is damaged: where data and random numbers stood"):
        solver(net("lmdb"), tmp_path).restore(state)


@pytest.mark.parametrize("source", ["lmdb", "multilabel"])
def test_going_back_to_a_snapshot(source, net, tmp_path):
    """The solver that wrote it restores it too."""
    made = solver(net(source), tmp_path)
    made.step(4)
    made.snapshot()
    expected = run(made, 4)
    made.restore(state_of(tmp_path, 4))
    assert differing(run(made, 4), expected) == []


@pytest.mark.parametrize("source, field", [("lmdb", "batch_size: "), ("multilabel", '"batch_size": ')])
def test_batches_of_another_size(source, field, net, tmp_path):
    """Resumed three times, with larger batches between: each record comes once an epoch."""
    labels = []
    for at, size in enumerate((3, 5, 3, 5)):
        made = solver(net(source, field + "3", f"{field}{size}"), tmp_path, seed=99)
        if at:
            made.restore(state_of(tmp_path, at))
        made.step(1)
        made.snapshot()
        labels += made.net.blobs["label"].data.tolist()
    records = sorted((sources.VECTORS if source == "multilabel" else sources.CLASSES).tolist())
    assert sorted(labels[: sources.COUNT]) == sorted(labels[sources.COUNT : 2 * sources.COUNT]) == records


@pytest.mark.parametrize(
    ("source", "old", "new", "message"),
    [
        ("lmdb", "/lmdb", "/fewer_lmdb", r"layer 'source' \(Data\) of the train net .*/fewer_lmdb has no record '006'"),
        ("lmdb", "/lmdb", "/other_lmdb", r"/other_lmdb has no record '006'"),
        ("images", "list.txt", "fewer_list.txt", r"expected a list of 7 images, found 6 in .*fewer_list.txt"),
        ("fork", "vectors.txt", "fewer_vectors.txt", r"\(MultiLabelData\) .* expected a list of 7 images, found 6"),
        ("hdf5", "hdf5.txt", "one_hdf5.txt", r"expected 2 files, found 1 in .*one_hdf5.txt"),
        ("hdf5_one", "one_hdf5", "one_fewer_hdf5", r"expected 4 rows in .*fewer_hdf5_1.h5, found 3"),
        ("multilabel", "other_lmdb", "fewer_lmdb", r"\(Python MultiLabelDataLayer\) .* of 7 records, found 6"),
        ("memory", "batch_size: 3", "batch_size: 9", r"batch_size to divide 6; found 9 items and batch_size 9"),
    ],
)
def test_another_source_is_refused(source, old, new, message, net, tmp_path, capsys):
    state = snapshot_after(net(source), tmp_path, 2)
    with pytest.raises(ValueError, match=message) as refused:
        solver(net(source, old, new), tmp_path).restore(state)
    assert "with another name it starts again" in str(refused.value)
    renamed = solver(net(source, old, new).replace('name: "source"', 'name: "fresh"'), tmp_path)
    capsys.readouterr()
    renamed.restore(state)
    said = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines() if line.startswith("W")]
    assert len(said) == 4  # two of the train net, two of the test net
    assert said[0].startswith(f"{state} does not know layer 'fresh'") and said[0].endswith("its data start again")
    renamed.step(1)


def test_another_kind_of_source_begins_anew(net, tmp_path, capsys):
    state = snapshot_after(net("lmdb"), tmp_path, 1)
    again = solver(net("images"), tmp_path)
    capsys.readouterr()
    again.restore(state)
    said = capsys.readouterr().err
    assert "does not know layer 'source' (ImageData) of test net #0: its data start again" in said
    assert "knows layer 'source' (Data) of test net #0, which is not there any more" in said


def test_a_refused_state_leaves_a_layer_in_step(net, tmp_path):
    """What it reads next is what its next snapshot speaks of."""
    state = snapshot_after(net("lmdb"), tmp_path, 2)
    made = solver(net("lmdb", "/lmdb", "/other_lmdb"), tmp_path)
    made.step(1)
    with pytest.raises(ValueError, match="has no record"):
        made.restore(state)
    made.snapshot()
    made.net.forward()
    expected = made.net.blobs["label"].data.tolist()
    made.restore(state_of(tmp_path, 1))
    made.net.forward()
    assert made.net.blobs["label"].data.tolist() == expected


def test_a_python_layer_without_the_methods_begins_anew(net, tmp_path):
    state = snapshot_after(net("python", "Resumed", "Numbers"), tmp_path, 3)
    again = solver(net("python", "Resumed", "Numbers"), tmp_path)
    again.restore(state)
    assert again.iter == 3 and again.net.layers[0].at == 0


def test_a_python_layer_must_give_bytes(net, tmp_path):
    made = solver(net("python", "Resumed", "Wrong"), tmp_path)
    with pytest.raises(TypeError, match="layer 'source': snapshot_state must return bytes or None, found 0"):
        made.snapshot()


@pytest.mark.parametrize("count, first, warned", [(9, 3, False), (6, 0, True)])
def test_arrays_may_come_after_the_state(count, first, warned, net, tmp_path, capsys):
    state = snapshot_after(net("memory"), tmp_path, 4)
    for _ in range(2):  # the second time from a snapshot that was made without arrays
        again = solver(net("memory"), tmp_path, filled=False)
        again.restore(state)
        again.snapshot()
    values = np.random.RandomState(5).rand(count, 1, 6, 6).astype(np.float32)
    capsys.readouterr()
    again.net.set_input_arrays(values, np.zeros(count, np.float32))
    assert ("the restored state is of 9 items, not of 6" in capsys.readouterr().err) == warned
    again.net.forward()
    np.testing.assert_array_equal(again.net.blobs["data"].data, values[first : first + 3])


def test_generators_of_another_torch_begin_anew(net, tmp_path, capsys):
    made = solver(net("lmdb"), tmp_path)
    state = solver_state.capture(made)
    state.generator[0].state = b"1234"
    path = solver_state.snapshot(made, state)
    capsys.readouterr()
    solver(net("lmdb"), tmp_path).restore(path)
    assert "random numbers start again: torch" in capsys.readouterr().err


def test_a_snapshot_within_a_test_goes_on_before_it(net, tmp_path):
    made = solver(net("lmdb"), tmp_path)
    made.step(2)
    before = solver_state.capture(made)
    expected = made.test(0)
    solver_state.snapshot(made, before)
    assert made.test(0) != expected
    made.restore(state_of(tmp_path, 2))
    assert made.test(0) == expected


def test_a_test_that_was_stopped_is_made_again(net, tmp_path):
    """As ^C does it: the test stops, and a snapshot is written."""
    made = solver(net("lmdb"), tmp_path, extra="snapshot_after_train: true max_iter: 6")
    made.step(3)
    calls = iter([None, "stop"])  # in the second of the test's three batches
    made.requested_action = lambda: next(calls)
    made.solve()
    expected = straight(net("lmdb"), tmp_path, 3, 4)
    assert differing(resumed(net("lmdb"), tmp_path, state_of(tmp_path, 3), 4), expected) == []


RECURRENT = """
layer { name: "data" type: "DummyData" top: "x" top: "y" top: "cont" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 4 } shape { dim: 2 dim: 3 dim: 5 } shape { dim: 2 dim: 3 }
  data_filler { type: "gaussian" } data_filler { value: 0.5 } data_filler { value: 1 } } }
layer { name: "lstm" type: "TYPE" bottom: "x" bottom: "cont" top: "h"
  recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }
"""


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_recurrent_layer_goes_on_with_its_states(kind, tmp_path, capsys):
    recurrent = RECURRENT.replace("TYPE", kind)
    expected = straight(recurrent, tmp_path, 4, 4)
    state = snapshot_after(recurrent, tmp_path, 4)
    assert differing(resumed(recurrent, tmp_path, state, 4), expected) == []
    capsys.readouterr()
    resumed(recurrent.replace("dim: 3", "dim: 2"), tmp_path, state, 1)
    assert "not the states of 2 streams: they begin with zeros" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["lmdb", "hdf5"])
def test_solvers_side_by_side_go_on_in_their_shares(source, net, tmp_path, monkeypatch):
    """The root's state takes each of them on in the records. Beside the root, random numbers are a solver's own."""
    in_order = net(source, "shuffle: true", "shuffle: false")
    monkeypatch.setattr(parallel, "_count", 2)
    for rank in (0, 1):
        monkeypatch.setattr(parallel, "_rank", rank)
        made = solver(in_order, tmp_path)
        made.step(3)
        if parallel.is_root():
            made.snapshot()
        again = solver(in_order, tmp_path)
        fresh = solver_state.capture(again).generator[0].state
        again.restore(state_of(tmp_path, 3))
        assert (solver_state.capture(again).generator[0].state == fresh) == (rank == 1)
        for _ in range(3):
            labels = []
            for one in (made, again):
                one.step(1)
                labels.append(one.net.blobs["label"].data.tolist())
            first = (made.iter - 1) * 3
            expected = sources.CLASSES[(np.arange(first, first + 3) * 2 + rank) % sources.COUNT].tolist()
            assert labels == [expected, expected]
