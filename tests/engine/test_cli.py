"""The `caffe` command: flags, signals, files. Its log lines are held against BVLC's in tests/conformance."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import caffe
import fixtures
import forked
import lmdb
import logs
import pytest
import torch
from caffe import errors
from caffe.cli import database
from caffe.cli.main import main
from caffe.cli.signals import SignalActions
from caffe.data import databases
from caffe.layer_types import neuron
from caffe.proto import caffe_pb2


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    fixtures.write(str(tmp_path / "data"))
    for file, text in logs.FILES.items():
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capfd, command: str) -> tuple[int, str]:
    capfd.readouterr()
    status = main(command.split()[1:])
    return status, capfd.readouterr().err


def test_training_writes_snapshots_and_leaves_nothing_else(folder, capfd):
    status, log = run(capfd, "caffe train -solver solver.prototxt")
    assert status == 0, log
    assert {path.name for path in folder.glob("*tiny*")} == {
        f"tiny_iter_{n}.{kind}" for n in (10, 20) for kind in ("caffemodel", "solverstate")
    }


@pytest.mark.parametrize("method", ["setup", "reshape", "forward", "backward"])
def test_an_error_in_a_users_layer_is_shown_with_its_traceback_and_place(folder, capfd, method):
    body = dict.fromkeys(("setup", "reshape", "forward", "backward"), "pass") | {
        "reshape": "top[0].reshape(*bottom[0].shape)", method: r"raise ValueError('mine\nsecond line')"
    }  # fmt: skip
    arguments = {"backward": "self, top, propagate_down, bottom"}
    (folder / f"mine_{method}.py").write_text("import caffe\n\nclass Mine(caffe.Layer):\n" + "".join(
        f"    def {name}({arguments.get(name, 'self, bottom, top')}):\n        {line}\n" for name, line in body.items()
    ))  # fmt: skip
    (folder / "net.prototxt").write_text(
        'force_backward: true layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 } } }'
        'layer { name: "m" type: "Python" bottom: "i" top: "m" python_param '
        f'{{ module: "mine_{method}" layer: "Mine" }} }}'
    )
    status, log = run(capfd, "caffe time -model net.prototxt -iterations 1")
    line = 5 + 2 * list(body).index(method)
    assert status == 1 and "Traceback (most recent call last)" in log
    assert log.splitlines()[-1].endswith(
        f"] layer 'm' (Python, mine_{method}.Mine, {folder / f'mine_{method}.py'}:{line}): ValueError: mine"
    )


@pytest.mark.parametrize(("module", "layer", "message"), [
    ("tiny_layers", "Misspelt", "has no class 'Misspelt'"), ("tiny_layers", "caffe", "must derive from caffe.Layer"),
    ("no_such_module", "Mine", "cannot import Python module 'no_such_module'"), ("", "Mine", "cannot import"),
    ("needs_another", "Mine", "cannot import Python module 'needs_another': No module named 'no_such_module'"),
])  # fmt: skip
def test_a_misspelt_python_layer_is_one_sentence(folder, capfd, module, layer, message, monkeypatch):
    (folder / "tiny_layers.py").write_text("import caffe\n")
    (folder / "needs_another.py").write_text("import caffe\nimport no_such_module\n")
    monkeypatch.delitem(sys.modules, "tiny_layers", raising=False)
    (folder / "net.prototxt").write_text(
        f'layer {{ name: "m" type: "Python" top: "m" python_param {{ module: "{module}" layer: "{layer}" }} }}'
    )
    status, log = run(capfd, "caffe time -model net.prototxt")
    assert status == 1 and f"layer 'm': {'module' if layer == 'Misspelt' else ''}" in log and message in log
    assert "Traceback" not in log.split("cannot import")[0]
    assert ('needs_another.py", line 2' in log) == ("Traceback" in log) == (module == "needs_another")


TOO_LARGE = {
    "convolution_param { num_output: 2147483647 kernel_size: 1 }": r"\(Convolution\): blob size exceeds INT_MAX",
    "convolution_param { num_output: 1 kernel_size: 1 pad: 65536 }": r"\(Convolution\): blob size exceeds INT_MAX",
    "inner_product_param { num_output: 2147483647 }": r"\(InnerProduct\): blob size exceeds INT_MAX",
    "tile_param { tiles: 2147483647 }": r"\(Tile\): blob size exceeds INT_MAX",
}


@pytest.mark.parametrize("param", TOO_LARGE)
def test_sizes_that_no_blob_has(folder, capfd, param):
    kind = {"conv": "Convolution", "inne": "InnerProduct", "tile": "Tile"}[param[:4]]
    (folder / "net.prototxt").write_text(
        'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }'
        f'layer {{ name: "big" type: "{kind}" bottom: "i" top: "big" {param} }}'
    )
    status, log = run(capfd, "caffe time -model net.prototxt")
    assert status == 1 and re.search(rf"layer 'big' {TOO_LARGE[param]}", log) and "Traceback" not in log


def test_a_layer_that_gets_no_memory_is_named(folder, capfd, monkeypatch):
    """A net of which a layer computes with more than there is: torch's own error does not name it."""
    (folder / "net.prototxt").write_text(
        'layer { name: "i" type: "Input" top: "i" input_param { shape { dim: 1 dim: 3 } } }'
        'layer { name: "act" type: "TanH" bottom: "i" top: "act" }'
    )

    def compute(layer, x):
        return torch.empty(1 << 55) + x

    monkeypatch.setattr(neuron.TanH, "compute", compute)
    status, log = run(capfd, "caffe time -model net.prototxt")
    assert status == 1 and re.search(r"layer 'act' \(TanH\): not enough memory: .*; make batch_size", log)
    net = caffe.Net("net.prototxt", caffe.TEST)
    with pytest.raises(MemoryError, match="layer 'act'"):
        net.forward()


def test_memory_that_is_short_outside_layers_is_told_with_the_commands_words(folder, capfd, monkeypatch):
    def forward(net, first, last):
        raise MemoryError

    (folder / "tiny.prototxt").write_text('layer { name: "i" type: "Input" top: "i" }')
    monkeypatch.setattr(caffe.Net, "_forward", forward)
    status, log = run(capfd, "caffe time -model tiny.prototxt")
    assert status == 1 and log.rstrip().endswith("not enough memory: MemoryError (time -model tiny.prototxt)"), log


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive"),
        ImportError("/x/_ufuncs.so: failed to map segment from shared object"),
        lmdb.MemoryError("x/data.mdb: Cannot allocate memory"),
    ],
    ids=repr,
)
def test_how_libraries_say_that_memory_is_short(error):
    assert errors.sentence(error).startswith("not enough memory: ")


def test_the_lmdb_that_there_is_no_memory_to_map_is_named(tmp_path, monkeypatch):
    def open_none(*arguments, **options):
        raise lmdb.MemoryError("Cannot allocate memory")

    with database.new(str(tmp_path / "good"), "lmdb") as records:
        records.put("key", b"value")
    monkeypatch.setattr(lmdb, "open", open_none)
    with pytest.raises(OSError, match=f"cannot write the LMDB {tmp_path}/new: not enough memory to map it$"):  # noqa: SIM117
        with database.new(str(tmp_path / "new"), "lmdb"):
            pass
    with pytest.raises(MemoryError, match=f"Cannot read LMDB {tmp_path}/good: not enough memory to map it"):
        databases.Database(str(tmp_path / "good"), caffe_pb2.DataParameter.LMDB)


SPELLINGS = [
    "-iterations 2",
    "--iterations=2",
    "-iterations=0x2",
    "-iterations 2 --logtostderr=1",
    "-iterations 9 -iterations 2",
    "-flagfile flags.txt",
    "-fromenv=iterations",
    "-tryfromenv=iterations,phase",
    "-iterations 2 -undefok=novel -novel=3",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_flags_are_read_as_gflags_reads_them(folder, capfd, monkeypatch, spelling):
    monkeypatch.setenv("FLAGS_iterations", "2")
    (folder / "flags.txt").write_text("# a comment\n--iterations=2\n-flag_of_another_program=x\n\n")
    status, log = run(capfd, f"caffe {spelling} time -model deploy.prototxt")
    assert status == 0
    assert "Testing for 2 iterations." in log


def test_a_flag_of_the_wrong_type(capfd):
    status, log = run(capfd, "caffe time -iterations many")
    assert status == 1
    assert "iterations" in log and "many" in log
    for words, message in {
        "-flagfile=nowhere.txt": "-flagfile: cannot read nowhere.txt: No such file or directory",
        "-fromenv=no_such_flag": "FLAGS_no_such_flag not found in environment",
        "-iterations=2147483648": "illegal value '2147483648' specified for int32 flag 'iterations'",
        "-undefok=novel -another": "unknown command line flag 'another'",
    }.items():
        assert run(capfd, f"caffe time {words}") == (1, f"ERROR: {message}\n")


@pytest.mark.parametrize("mode", ["CPU", "GPU", None])
def test_solver_mode(folder, capfd, mode):
    """CPU where the solver does not say (BVLC: "Use CPU."); GPU written out warns where there is none."""
    import torch

    if mode == "GPU" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    solver = Path("solver.prototxt")
    line = f"solver_mode: {mode}" if mode else ""
    solver.write_text(solver.read_text().replace("solver_mode: CPU", line).replace("max_iter: 20", "max_iter: 1"))
    status, log = run(capfd, "caffe train -solver solver.prototxt")
    assert status == 0
    assert "caffe.cpp:197] Use CPU.\n" in log
    assert ("solver_mode is GPU" in log and "training on the CPU" in log) == (mode == "GPU")


def test_help_names_every_command(capfd):
    assert main(["help"]) == 0
    assert re.findall(r"(?m)^  (\w+) ", capfd.readouterr().out) == [
        "train", "test", "device_query", "time", "shim", "doctor"
    ]  # fmt: skip
    assert main(["halp"]) == 1
    assert [line.split()[-1] for line in capfd.readouterr().err.splitlines()] == [
        "actions:", "device_query", "test", "time", "train", "shim", "doctor", "halp"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "number, effect, snapshots, ends",
    [
        (signal.SIGINT, "", True, True),
        (signal.SIGHUP, "", True, False),
        (signal.SIGINT, "-sigint_effect=none", False, False),
    ],
)
def test_signals(folder, number, effect, snapshots, ends):
    """SIGINT stops and snapshots, SIGHUP snapshots and goes on, none does nothing."""
    child, lines = forked.begin(main, f"train -solver long.prototxt {effect}".split())
    with lines:
        log = until(lines, "Test net output #1")
        os.kill(child.pid, number)
        if snapshots:
            log += until(lines, "Snapshotting solver state")
        if ends:
            log += lines.read()
            child.join(60)
            assert child.exitcode == 0
        else:
            time.sleep(0.5)
            assert child.exitcode is None
            child.kill()
            log += lines.read()
    assert ("Snapshotting solver state" in log) == snapshots
    assert ("Optimization stopped early." in log) == ends


@pytest.mark.parametrize(
    ("command", "words", "number"),
    [
        ("train -solver long.prototxt", "Test net output #1", signal.SIGTERM),
        ("time -model deploy.prototxt -iterations 1000000", "Iteration: 2", signal.SIGINT),
        ("time -model deploy.prototxt -iterations 1000000", "Iteration: 2", signal.SIGHUP),
    ],
)
@pytest.mark.usefixtures("hangups")
def test_a_signal_ends_a_command_with_one_line(folder, command, words, number):
    before = sorted(path.name for path in folder.iterdir())
    child, lines = forked.begin(main, command.split())
    with lines:
        until(lines, words)
        os.kill(child.pid, number)
        log = lines.read()
    child.join(60)
    assert child.exitcode == 128 + number
    assert log.splitlines()[-1] == f"caffe: ended by {signal.Signals(number).name}" and "Traceback" not in log
    assert sorted(path.name for path in folder.iterdir()) == before


def until(lines, words: str) -> str:
    """Read a log up to the line with `words`."""
    log = ""
    for line in lines:
        log += line
        if words in line:
            return log
    raise AssertionError(f"{words!r} did not come:\n{log}")


def test_no_iterations_and_no_layers(folder, capfd):
    """BVLC Caffe shows means of nothing, and refuses a net without layers: Check failed: end < layers_.size()."""
    for command in ("time -model deploy.prototxt -iterations 0", "time -model deploy.prototxt -iterations -3"):
        status, log = run(capfd, f"caffe {command}")
        assert status == 0 and "*** Benchmark ends ***" in log
    (folder / "empty.prototxt").write_text("")
    status, log = run(capfd, "caffe time -model empty.prototxt")
    assert status == 1 and "net '' has no layer: expected at least one" in log and "Traceback" not in log


def test_an_unknown_signal_effect_is_refused():
    with pytest.raises(ValueError, match='Invalid signal effect "halt"'):
        SignalActions("halt", "snapshot")
