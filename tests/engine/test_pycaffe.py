"""pycaffe as scripts use it: old habits, what lives how long, several solvers, Timer, the log. NCCL: test_nccl.py."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import textwrap
import time

import caffe
import lmdb
import numpy as np
import pytest
from caffe.proto import caffe_pb2

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }
"""


@pytest.fixture
def files(tmp_path):
    """(prototxt, caffemodel, solver prototxt) of a small net."""
    net, weights, solver = (tmp_path / name for name in ("net.prototxt", "w.caffemodel", "solver.prototxt"))
    net.write_text(NET)
    solver.write_text(
        f'net: "{net}" base_lr: 0.1 lr_policy: "step" stepsize: 2 gamma: 0.5 max_iter: 4\n'
        f'snapshot_prefix: "{tmp_path}/s"'
    )
    caffe.Net(str(net), caffe.TEST).save(str(weights))
    return str(net), str(weights), str(solver)


@pytest.fixture
def alone():
    """Afterwards this process is the only solver again."""
    yield
    caffe.set_solver_rank(0)
    caffe.set_solver_count(1)
    caffe.set_multiprocess(False)


# -- signatures


def test_constructors(files, capsys):
    net, weights, _ = files
    by_keyword = caffe.Net(network_file=net, phase=caffe.TEST, level=0, stages=["deploy"], weights=weights)
    by_position = caffe.Net(net, caffe.TEST, 0, None, weights)
    assert "DEPRECATION" not in capsys.readouterr().err
    deprecated = caffe.Net(net, weights, caffe.TEST)
    assert "DEPRECATION WARNING" in capsys.readouterr().err
    assert deprecated.phase == caffe.TEST
    for made in (by_position, deprecated):
        np.testing.assert_array_equal(made.params["ip"][0].data, by_keyword.params["ip"][0].data)


def test_private_names_that_scripts_use(files):
    net = caffe.Net(files[0], caffe.TRAIN)
    net.blobs["data"].data[...] = 1
    assert net._blob_names == ["data", "ip", "sum"]
    assert net._layer_names == ["data", "ip", "sum"]
    assert [net._blob_names[i] for i in net._inputs] == ["data"]
    assert [net._blob_names[i] for i in net._outputs] == ["sum"]
    assert (net._bottom_ids(1), net._top_ids(1)) == ([0], [1])
    assert net._blob_loss_weights == [0, 0, 1]
    assert net.blob_loss_weights["sum"] == 1
    loss = net._forward(0, 2)
    assert loss == pytest.approx(float(net.blobs["sum"].data))
    net._backward(2, 0)
    assert net.params["ip"][0].diff == pytest.approx(np.full((2, 3), 4.0))
    assert net._forward(2, 1) == 0  # no layer
    batches = list(net._batch({"data": np.ones((6, 3))}))
    assert [batch["data"].shape for batch in batches] == [(4, 3), (4, 3)]
    assert batches[1]["data"][2:].sum() == 0


def test_forward_all_without_inputs_is_refused(files):
    with pytest.raises(ValueError, match=r"forward_all: expected arrays for the net's inputs \['data'\]"):
        caffe.Net(files[0], caffe.TEST).forward_all()


def test_the_learning_rate_is_that_of_the_next_update(files):
    solver = caffe.SGDSolver(files[2])
    rates = []
    for _ in range(3):
        rates.append(solver.lr)
        solver.step(1)
    assert rates == pytest.approx([0.1, 0.1, 0.05])
    solver.param.base_lr = 0.4
    assert solver.lr == pytest.approx(0.2)


# -- aliasing and lifetimes


def test_nets_outlive_solvers_and_arrays_outlive_nets(files):
    solver = caffe.get_solver(files[2])
    net = solver.net
    del solver
    gc.collect()
    net.blobs["data"].data[...] = 2
    out = net.forward()["sum"]
    weights, value = net.params["ip"][0].data, float(out)
    del net
    gc.collect()
    weights.flat[0] = 7
    assert (weights[0, 0], float(out)) == (7, value)


def test_writes_through_flat_and_fancy_indices_reach_the_net(files):
    net = caffe.Net(files[0], caffe.TEST)
    data, weights = net.blobs["data"].data, net.params["ip"][0].data
    weights[...] = 0
    data.flat = np.arange(12)
    weights[[0, 1], [2, 0]] = (1, 10)
    net.params["ip"][1].data.flat[1] = 0.5
    out = net.forward(blobs=["ip"])["ip"]
    np.testing.assert_array_equal(out, np.stack([data[:, 2], data[:, 0] * 10 + 0.5], 1))
    data[data > 5] = 0
    net.forward()
    assert out[3, 0] == 0  # what forward gave shows the blob as it is now


def test_share_with_and_solver_share_weights(files):
    net, solver = caffe.Net(files[0], caffe.TEST), caffe.SGDSolver(files[2])
    solver.share_weights(net)
    solver.net.params["ip"][0].data[...] = 3
    assert (net.params["ip"][0].data == 3).all()


def test_hdf5_weights(files, tmp_path):
    net, other = caffe.Net(files[0], caffe.TEST), caffe.Net(files[0], caffe.TEST)
    net.save_hdf5(str(tmp_path / "w.h5"))
    other.load_hdf5(str(tmp_path / "w.h5"))
    np.testing.assert_array_equal(other.params["ip"][0].data, net.params["ip"][0].data)


def test_set_input_arrays(tmp_path):
    path = tmp_path / "memory.prototxt"
    path.write_text(
        'layer { name: "m" type: "MemoryData" top: "x" top: "y" '
        "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 2 } }"
    )
    net = caffe.Net(str(path), caffe.TEST)
    data = np.arange(4, dtype=np.float32).reshape(2, 1, 1, 2)
    for set_arrays in (net.set_input_arrays, net._set_input_arrays):
        set_arrays(data, np.array([5, 6], np.float32))
        np.testing.assert_array_equal(net.forward()["x"], data)
        assert net.blobs["y"].data.ravel().tolist() == [5, 6]


# -- Python layers: where they are found

LAYER = """
import caffe

class Mark(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(1)
    def reshape(self, bottom, top):
        pass
    def forward(self, bottom, top):
        top[0].data[...] = MARK
    def backward(self, top, propagate_down, bottom):
        pass
"""


def python_net(folder, module):
    path = folder / f"{module}.prototxt"
    path.write_text(
        f'layer {{ name: "py" type: "Python" top: "y" python_param {{ module: "{module}" layer: "Mark" }} }}\n'
        'layer { name: "power" type: "Power" bottom: "y" top: "z" loss_weight: 1 }'
    )
    return str(path)


@pytest.fixture
def unused_name(request, monkeypatch):
    """A module name of this test's own; sys.path and sys.modules are afterwards as before."""
    name = re.sub(r"\W", "_", f"layers_of_{request.node.name}")
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("where", ["beside", "solver", "working_directory"])
def test_python_layers_are_found(where, unused_name, tmp_path, monkeypatch):
    nets, elsewhere = tmp_path / "nets", tmp_path / "elsewhere"
    nets.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    prototxt = python_net(nets, unused_name)
    folder = elsewhere if where == "working_directory" else nets
    (folder / f"{unused_name}.py").write_text(LAYER.replace("MARK", "12"))
    if where == "solver":
        solver = nets / "solver.prototxt"
        solver.write_text(f'net: "../nets/{unused_name}.prototxt" base_lr: 1 lr_policy: "fixed" snapshot_prefix: "s"')
        net = caffe.get_solver(str(solver)).net
    else:
        net = caffe.Net(prototxt, caffe.TEST)
    assert net.forward(blobs=["y"])["y"].tolist() == [12]


def test_a_python_layer_on_the_path_comes_first(unused_name, tmp_path):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / f"{unused_name}.py").write_text(LAYER.replace("MARK", "1"))
    (tmp_path / f"{unused_name}.py").write_text(LAYER.replace("MARK", "2"))
    sys.path.insert(0, str(tmp_path / "path"))
    assert caffe.Net(python_net(tmp_path, unused_name), caffe.TEST).forward(blobs=["y"])["y"].tolist() == [1]


def test_a_missing_python_layer_says_where_it_was_looked_for(unused_name, tmp_path):
    with pytest.raises(ImportError, match=f"(?s)layer 'py'.*'{unused_name}'.*PYTHONPATH.*Looked in: ") as caught:
        caffe.Net(python_net(tmp_path, unused_name), caffe.TEST)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "line, words",
    [("value = 1 / 0", "division by zero"), ("import no_such_package", "No module named 'no_such_package'")],
)
def test_a_failing_python_layer_shows_its_traceback(line, words, unused_name, tmp_path):
    (tmp_path / f"{unused_name}.py").write_text(f"import caffe\n\n{line}\n")
    with pytest.raises(ImportError, match=f"(?s){words}.*line 3.*{line}") as caught:
        caffe.Net(python_net(tmp_path, unused_name), caffe.TEST)
    assert "Looked in" not in str(caught.value)


# -- several solvers, Timer, the log


def test_solvers_share_the_records_out(tmp_path, alone):
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for label in range(6):
            datum = caffe_pb2.Datum(channels=1, height=1, width=1, data=bytes([label]), label=label)
            txn.put(b"%d" % label, datum.SerializeToString())
    path = tmp_path / "data.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" top: "x" top: "y" '
        f'data_param {{ source: "{tmp_path / "db"}" batch_size: 4 backend: LMDB }} }}'
    )

    def labels(phase):
        return caffe.Net(str(path), phase).forward()["y"].tolist()

    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(3)
    found = []
    for rank in range(3):
        caffe.set_solver_rank(rank)
        found.append(labels(caffe.TRAIN))
    assert found == [[0, 3, 0, 3], [1, 4, 1, 4], [2, 5, 2, 5]]
    assert labels(caffe.TEST) == [0, 1, 2, 3]
    caffe.set_solver_rank(3)
    with pytest.raises(ValueError, match=r"layer 'd'.*solver_rank below solver_count 3, found 3"):
        labels(caffe.TRAIN)


def test_only_the_root_solves_snapshots_and_logs(files, tmp_path, alone, capsys):
    caffe.set_solver_count(2)
    caffe.set_solver_rank(1)
    with open(files[2], "a") as file:
        file.write(" snapshot: 1 display: 1")
    solver = caffe.get_solver(files[2])
    solver.step(2)
    assert not list(tmp_path.glob("s_iter*"))
    assert "Iteration" not in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="set_solver_rank said 1"):
        solver.solve()
    caffe.set_solver_rank(0)
    solver.step(1)
    assert list(tmp_path.glob("s_iter_3.caffemodel"))
    assert "Iteration 2" in capsys.readouterr().err


def test_python_layers_need_set_multiprocess_beside_other_solvers(unused_name, tmp_path, alone):
    (tmp_path / f"{unused_name}.py").write_text(LAYER.replace("MARK", "1"))
    prototxt = python_net(tmp_path, unused_name)
    caffe.set_solver_count(2)
    with pytest.raises(RuntimeError, match=r"'py'.*set_multiprocess"):
        caffe.Net(prototxt, caffe.TRAIN)
    caffe.Net(prototxt, caffe.TEST)
    caffe.set_multiprocess(True)
    caffe.Net(prototxt, caffe.TRAIN)


@pytest.mark.parametrize("call, value", [(caffe.set_solver_count, 0), (caffe.set_solver_rank, -1)])
def test_unsound_solver_numbers(call, value, alone):
    with pytest.raises(ValueError, match=f"found {value}"):
        call(value)


def test_timer(capsys):
    timer = caffe.Timer()
    assert timer.ms == 0
    assert "Timer has never been run before reading time." in capsys.readouterr().err
    timer.start()
    time.sleep(0.02)
    timer.stop()
    first = timer.ms
    assert 20 <= first < 2000
    assert timer.ms == first
    timer.start()
    assert timer.ms < first + 2000  # reading stops it
    second = timer.ms
    time.sleep(0.002)
    assert timer.ms == second


def test_log(capsys, tmp_path, monkeypatch):
    """BVLC's init_log(level, True) logs to stderr, init_log(), (level) and (level, False) to a file without a link."""
    monkeypatch.setenv("GLOG_log_dir", str(tmp_path))
    caffe.log("at first")
    assert capsys.readouterr().err.endswith("_caffe.cpp:68] at first\n")
    try:
        caffe.init_log(0, True)
        caffe.log("hello")
        assert capsys.readouterr().err.endswith("_caffe.cpp:68] hello\n")
        assert not list(tmp_path.iterdir())
        for arguments in ((1,), (1, False), (1, True)):
            caffe.init_log(*arguments)
            caffe.log("quiet")
        caffe.init_log()
        caffe.log("one")
        caffe.init_log(0, False)
        caffe.log("two")
        assert capsys.readouterr().err == ""
        text = "".join(path.read_text() for path in tmp_path.iterdir())
        assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {""}
        assert "] one\n" in text and "] two\n" in text and "quiet" not in text
    finally:
        caffe.glog.stop()


# -- a project as they are written


def test_a_script_in_the_old_style_runs(files, tmp_path):
    """Names from caffe._caffe and caffe.pycaffe, module-level set-up, a solver loop, a Python layer beside the net."""
    (tmp_path / "old_layer.py").write_text(
        LAYER.replace("MARK", "int(self.param_str_)").replace("reshape(1)", "reshape(1, 1)")
    )
    (tmp_path / "train.prototxt").write_text(
        'layer { name: "py" type: "Python" top: "y" '
        'python_param { module: "old_layer" layer: "Mark" param_str: "4" } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "y" top: "ip" inner_product_param { num_output: 1 } }\n'
        'layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "l" }'
    )
    (tmp_path / "solver.prototxt").write_text(
        'train_net: "train.prototxt" base_lr: 0.01 lr_policy: "fixed" snapshot_prefix: "s" type: "Adam"'
    )
    (tmp_path / "train.py").write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.insert(0, "../../caffe/python")
            import caffe
            from caffe._caffe import Net, get_solver, Layer
            from caffe.pycaffe import SGDSolver
            from caffe.proto import caffe_pb2
            import google.protobuf  # text_format is in it once caffe is imported

            caffe.init_log(0, True)
            caffe.set_mode_cpu()
            caffe.set_device(0)
            param = caffe_pb2.SolverParameter()
            google.protobuf.text_format.Merge(open("solver.prototxt").read(), param)
            solver = get_solver("solver.prototxt")
            assert param.base_lr == solver.param.base_lr
            assert isinstance(solver.net, Net) and isinstance(solver.net.layers[0], Layer)
            losses = []
            for _ in range(3):
                solver.step(1)
                losses.append(float(solver.net.blobs["l"].data))
            assert losses[2] < losses[0] and solver.iter == 3, losses
            solver.snapshot()
            caffe.log("done")
            """
        )
    )
    done = subprocess.run([sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.endswith("] done\n")
    assert (tmp_path / "s_iter_3.solverstate").is_file()
