"""caffe.NCCL: several solvers of one training, each a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import caffe
import lmdb
import numpy as np
import pytest
import side_by_side
from caffe import group
from caffe.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]
TRAIN_PY = ROOT / ".reference/root/usr/share/doc/python3-caffe/examples/train.py"
NET = """
layer {{ name: "data" type: "Data" top: "x" top: "y" include {{ phase: TRAIN }}
        data_param {{ source: "{folder}/db" batch_size: {batch} backend: LMDB }}
        transform_param {{ mirror: {random} }} }}
layer {{ name: "data" type: "Data" top: "x" top: "y" include {{ phase: TEST }}
        data_param {{ source: "{folder}/db" batch_size: 8 backend: LMDB }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param {{ num_output: 6
        weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "ip" top: "ip" dropout_param {{ dropout_ratio: {ratio} }} }}
layer {{ name: "out" type: "InnerProduct" bottom: "ip" top: "out" inner_product_param {{ num_output: 4
        weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "y" top: "loss" }}
"""


@pytest.fixture
def solver(tmp_path):
    """A function that writes a solver of a batch size, and returns its path. random: with dropout, mirrored images."""
    numbers = np.random.RandomState(0)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as env, env.begin(write=True) as txn:
        for key in range(40):
            pixels = numbers.randint(0, 3, (2, 3, 4)).astype(np.uint8)
            datum = caffe_pb2.Datum(channels=2, height=3, width=4, data=pixels.tobytes(), label=key % 4)
            txn.put(b"%03d" % key, datum.SerializeToString())

    def write(batch: int, random: bool = False, settings: str = "max_iter: 9") -> str:
        net, path = tmp_path / f"net{batch}.prototxt", tmp_path / f"solver{batch}.prototxt"
        ratio = 0.5 if random else 0
        net.write_text(NET.format(folder=tmp_path, batch=batch, random=str(random).lower(), ratio=ratio))
        path.write_text(
            f'net: "{net}" base_lr: 0.05 momentum: 0.9 weight_decay: 0.01 lr_policy: "step" stepsize: 4 gamma: 0.5 '
            f'random_seed: 7 snapshot_prefix: "{tmp_path}/s" {settings}'
        )
        return str(path)

    return write


def parameters(path: str) -> list[np.ndarray]:
    message = caffe_pb2.NetParameter()
    with open(path, "rb") as file:
        message.ParseFromString(file.read())
    return [np.array(blob.data, np.float32) for layer in message.layer for blob in layer.blobs]


def check_ended(ended: list[side_by_side.Ended]) -> None:
    assert [child.status for child in ended] == [0] * len(ended), "\n".join(child.text for child in ended)


@pytest.mark.parametrize("count", [2, 4])
def test_solvers_side_by_side_are_one_with_the_whole_batch(count, solver, tmp_path):
    alone = caffe.get_solver(solver(8))
    alone.step(9)
    alone.net.save(str(tmp_path / "alone"))
    path = solver(8 // count, settings="max_iter: 9 display: 3 snapshot: 6 test_iter: 2 test_interval: 4")
    ended = side_by_side.run(count, lambda rank, uid: side_by_side.train(path, str(tmp_path / "w"), uid))
    check_ended(ended)
    root = parameters(tmp_path / "w0")
    for found, expected in zip(root, parameters(tmp_path / "alone"), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    for rank in range(1, count):
        assert all(map(np.array_equal, parameters(tmp_path / f"w{rank}"), root))
        assert "Iteration" not in ended[rank].text
    assert "Iteration 8, Testing net (#0)" in ended[0].text and "] Iteration 6 (" in ended[0].text
    assert [path.name for path in tmp_path.glob("s_iter*.solverstate")] == ["s_iter_6.solverstate"]


@pytest.mark.parametrize("restoring", ["each", "root"])
def test_a_resumed_pair_equals_the_uninterrupted_one(restoring, solver, tmp_path):
    """Dropout and mirrored images are of each solver's own random numbers: the root's snapshot has those of both."""
    path = solver(4, random=True, settings="max_iter: 9 snapshot: 5")
    check_ended(side_by_side.run(2, lambda rank, uid: side_by_side.train(path, str(tmp_path / "w"), uid)))
    state = str(tmp_path / "s_iter_5.solverstate")

    def resume(rank: int, uid: bytes) -> None:
        snapshot = state if rank == 0 or restoring == "each" else None
        side_by_side.train(path, str(tmp_path / "again"), uid, snapshot, steps=4)

    check_ended(side_by_side.run(2, resume))
    for rank in (0, 1):
        assert all(map(np.array_equal, parameters(tmp_path / f"again{rank}"), parameters(tmp_path / f"w{rank}")))


def test_two_states_go_on_in_another_number_of_solvers(solver, tmp_path):
    path = solver(4, settings="max_iter: 9 snapshot: 5")
    check_ended(side_by_side.run(2, lambda rank, uid: side_by_side.train(path, str(tmp_path / "w"), uid)))
    alone = caffe.get_solver(solver(8))
    alone.restore(str(tmp_path / "s_iter_5.solverstate"))
    alone.step(4)
    alone.net.save(str(tmp_path / "alone"))
    for found, expected in zip(parameters(tmp_path / "alone"), parameters(tmp_path / "w0"), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("asking", [0, 1])
@pytest.mark.parametrize("action", ["stop", "snapshot"])
def test_what_one_solver_is_asked_for_all_do(asking, action, solver, tmp_path):
    path = solver(4, settings="max_iter: 5 test_iter: 1 test_interval: 4 test_initialization: false")

    def work(rank: int, uid: bytes) -> None:
        made = caffe.get_solver(path)
        asked = iter([None, None, action])
        if rank == asking:
            made.requested_action = lambda: next(asked, None)
        exchange = caffe.NCCL(made, uid)
        exchange.bcast()
        made.add_callback(exchange)
        made.step(5)
        print("at", made.iter, made.stopped)

    ended = side_by_side.run(2, work)
    check_ended(ended)
    place = "at 3 True" if action == "stop" else "at 5 False"
    assert all(f"\n{place}\n" in f"\n{child.text}" for child in ended)  # torch may have a last word
    assert (tmp_path / "s_iter_3.solverstate").exists() == (action == "snapshot")


def test_a_root_that_is_stopped_in_a_test_stops_the_others(solver):
    path = solver(4, settings="max_iter: 5 test_iter: 3 test_interval: 2 test_initialization: false")

    def work(rank: int, uid: bytes) -> None:
        made = caffe.get_solver(path)
        asked = iter([None, None, "stop"])  # of iterations 0 and 1, and in the test
        if rank == 0:
            made.requested_action = lambda: next(asked, None)
        exchange = caffe.NCCL(made, uid)
        exchange.bcast()
        made.add_callback(exchange)
        made.step(5)
        print("at", made.iter, made.stopped)

    ended = side_by_side.run(2, work)
    check_ended(ended)
    assert [child.text.splitlines()[-1] for child in ended] == ["at 2 True", "at 2 True"]


def test_unequal_steps_end_with_a_sentence(solver, tmp_path):
    path = solver(4)
    ended = side_by_side.run(
        2, lambda rank, uid: side_by_side.train(path, str(tmp_path / "w"), uid, steps=6 - 3 * rank)
    )
    assert [child.status for child in ended] == [1, 0]
    assert (
        "ValueError: solver 0 begins iteration 3 and solver 1 ended its steps at iteration 3: give each solver the "
        "same number of steps, and bcast() after a restore" in ended[0].text
    )


def fail(rank: int, uid: bytes, path: str, failing: int, action: Callable[[], object]) -> None:
    """Train; in the third iteration the solver `failing` does `action`."""
    made = caffe.get_solver(path)
    exchange = caffe.NCCL(made, uid)
    made.add_callback(exchange)
    made.net.before_forward(lambda layer: rank == failing and made.iter == 2 and action())
    made.step(1000)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_dead_solver_ends_the_other(failing, solver):
    path = solver(4)
    ended = side_by_side.run(
        2, lambda rank, uid: fail(rank, uid, path, failing, lambda: os.kill(os.getpid(), signal.SIGKILL))
    )
    assert ended[failing].status == -signal.SIGKILL and ended[1 - failing].status == 1
    assert (
        f"LostError: solver {1 - failing} of 2 lost another one, whose process ended or cannot be reached"
        in ended[1 - failing].text
    )


def join_late(rank: int, uid: bytes, path: str, work: Callable[[object], object]) -> None:
    """Train; the solver 1 does work(store) first."""
    if rank == 1:
        work(group.open_store(uid))
    made = caffe.get_solver(path)
    exchange = caffe.NCCL(made, uid)
    made.add_callback(exchange)
    made.step(1)


def test_a_solver_that_gives_no_sign_of_life_is_not_waited_for(solver, monkeypatch):
    monkeypatch.setattr(group, "_SILENCE", 1)
    path = solver(4)
    ended = side_by_side.run(2, lambda rank, uid: join_late(rank, uid, path, lambda store: sys.exit(9)))
    assert [child.status for child in ended] == [1, 9]
    assert (
        "LostError: solver 0 of 2 waited 1 s for a sign of solver 1, which ended or never began: start 2 processes, "
        "each with a rank of its own" in ended[0].text
    )


def test_a_solver_that_lives_is_waited_for(solver, monkeypatch):
    monkeypatch.setattr(group, "_SILENCE", 2)
    monkeypatch.setattr(group, "_SIGN", 0.2)
    path = solver(4)

    def load(store: object) -> None:
        with group.sign_of_life(store, 1):
            time.sleep(5)

    check_ended(side_by_side.run(2, lambda rank, uid: join_late(rank, uid, path, load)))


def test_a_failure_before_all_have_joined_ends_those_that_wait(solver):
    path = solver(4)

    def claim(store: object) -> None:
        assert group.claim(store, 1, "no such file")
        sys.exit(1)

    begin = time.monotonic()
    ended = side_by_side.run(2, lambda rank, uid: join_late(rank, uid, path, claim))
    assert "LostError: solver 0 of 2: another one failed before it had joined" in ended[0].text
    assert time.monotonic() - begin < group._SILENCE


def test_a_failing_solver_ends_the_other(solver):
    path = solver(4)
    ended = side_by_side.run(2, lambda rank, uid: fail(rank, uid, path, 1, lambda: 1 // 0))
    assert [child.status for child in ended] == [1, 1]
    assert "ZeroDivisionError" in ended[1].text and "LostError: solver 0 of 2 lost another one" in ended[0].text


def test_other_nets_are_refused(solver, tmp_path):
    paths = solver(4), solver(2)
    net = tmp_path / "net2.prototxt"
    net.write_text(net.read_text().replace("num_output: 6", "num_output: 5"))
    ended = side_by_side.run(2, lambda rank, uid: side_by_side.train(paths[rank], str(tmp_path / "w"), uid))
    assert all("expected the same net and solver type everywhere" in child.text for child in ended)


def test_all_gather(solver):
    path = solver(4)
    own = np.arange(3, dtype=np.float32)
    assert np.array_equal(caffe.all_gather(own), own[None])  # alone

    def work(rank: int, uid: bytes) -> None:
        made = caffe.get_solver(path)
        exchange = caffe.NCCL(made, uid)
        made.add_callback(exchange)
        asked = []

        def gather(layer: int) -> None:
            if layer == 0 and made.iter == 0:
                asked.append(caffe.all_gather(np.array([[rank, 5]], np.int32)).tolist())
            if layer == 0 and made.iter == 1:
                caffe.all_gather(np.zeros(2 + rank))

        made.net.before_forward(gather)
        made.step(1)
        assert asked == [[[[0, 5]], [[1, 5]]]]
        made.iter = 7  # outside of step
        assert caffe.all_gather(np.zeros(2)).shape == (1, 2)
        made.iter = 1
        made.step(1)

    ended = side_by_side.run(2, work)
    assert all(
        "all_gather: expected arrays of one shape; the solvers have (2,), (3,)" in child.text for child in ended
    ), ended


def test_solvers_meet_where_torchrun_says(solver, tmp_path, monkeypatch):
    path = solver(4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", str(port)), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)

    def work(rank: int, uid: bytes) -> None:
        os.environ["RANK"] = str(rank)
        side_by_side.train(path, str(tmp_path / "w"), None)

    check_ended(side_by_side.run(2, work))
    assert all(map(np.array_equal, parameters(tmp_path / "w0"), parameters(tmp_path / "w1")))


def test_one_solver_is_a_training_too(solver, tmp_path):
    alone = caffe.get_solver(solver(8))
    alone.step(9)
    alone.net.save(str(tmp_path / "alone"))
    check_ended(side_by_side.run(1, lambda rank, uid: side_by_side.train(solver(8), str(tmp_path / "w"), uid)))
    assert all(map(np.array_equal, parameters(tmp_path / "w0"), parameters(tmp_path / "alone")))


def test_a_uid_that_is_none():
    assert caffe.has_nccl()
    with pytest.raises(ValueError, match=r"expected a uid that caffe.NCCL.new_uid\(\) gave, found 'x'"):
        caffe.NCCL(None, "x")
    with pytest.raises(ConnectionError, match="cannot be reached"):
        caffe.NCCL(None, "127.0.0.1:1")


@pytest.mark.slow
@pytest.mark.skipif(not TRAIN_PY.exists(), reason="needs make reference")
def test_bvlcs_train_py_runs_as_it_stands(solver, tmp_path):
    """Where there is no GPU, its processes compute on the CPU."""
    path = solver(4, settings="max_iter: 6 display: 2 snapshot: 6")
    alone = caffe.get_solver(solver(8))
    alone.step(6)
    words = [sys.executable, str(TRAIN_PY), "--solver", path, "--gpus", "0", "1", "--timing"]
    environment = {**os.environ, "GLOG_logtostderr": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Using devices [0, 1]" in done.stderr and done.stderr.count("allreduce: ") == 3
    found = parameters(tmp_path / "s_iter_6.caffemodel")
    for blob, values in zip(alone.net.learnable_params, found, strict=True):
        np.testing.assert_allclose(values, blob.data.ravel(), atol=1e-6)
