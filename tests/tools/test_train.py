"""The training driver: what it skips, resumes, refuses and sets aside, with a stand-in for `caffe train`."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time

import net
import pytest
import train
from caffe.proto import caffe_pb2
from dhn.datasets import splits
from dhn.files import sha256, write_json
from dhn.runs import code_watch, command_line, training
from dhn.runs.folder import WRITTEN, Run, RunError
from dhn.weights import report as weights_report

STEP, STEPS = 10, 4  # iterations between snapshots, snapshots of a training

# What stands in for prototxt/net.py and for `caffe train`, as far as the driver can see: prototxt files; log lines,
# snapshots on the way, final weights. It imports no caffe, to be quick.
STAND_IN = f"""
import os, sys, time
from pathlib import Path

def texts(dataset, variant, bits, folder, net, seed, settings):
    both = dict.fromkeys(("train_val.prototxt", "deploy.prototxt"), f'name: "{{dataset}} {{variant}} {{bits}}"\\n')
    given = "".join(f" --set {{name}}={{value}}" for name, value in settings.items())
    words = f"{{dataset}} --variant {{variant}} --bits {{bits}}{{given}} --out {{folder}}"
    solver = f'# Written by: python prototxt/net.py {{words}}\\nmax_iter: {STEP * STEPS}\\n'
    solver += f'base_lr: {{settings.get("base_lr", 0.5)}}\\nsnapshot_prefix: "{{folder}}/{{variant}}"\\n'
    return {{**both, "solver.prototxt": solver}}

def command(mode):
    def make(run, snapshot, weights, gpu):
        begin = snapshot.rsplit("_iter_")[1].split(".")[0] if snapshot else "0"
        given = [weights or "", "" if gpu is None else str(gpu)]
        return [sys.executable, __file__, str(run.folder / run.variant), mode, begin, *given]
    return make

if __name__ == "__main__":
    prefix, mode, begin = sys.argv[1], sys.argv[2], int(sys.argv[3])
    Path(__file__).with_name("pid").write_text(str(os.getpid()))
    Path(__file__).with_name("given").write_text(" ".join(sys.argv[4:]))
    for iteration in range(begin, {STEP * STEPS} + 1, {STEP}):
        rate = 0 if iteration == begin else 50
        print(f"I1124 03:04:05.000006 7 solver.cpp:239] Iteration {{iteration}} ({{rate}} iter/s, "
              f"{STEP / 50}s/{STEP} iters), loss = {{1 / (1 + iteration)}}", file=sys.stderr, flush=True)
        if mode == "stuck":
            print("I1124 03:04:05.6 7 solver.cpp:258]     Train net output #0: pairwise_loss = 0.6931 "
                  "(* 1 = 0.6931 loss)", file=sys.stderr, flush=True)
        if mode == "fail" and iteration:
            sys.exit("Check failed: something")
        if mode in ("diverge", "unseen") and iteration > begin:  # what is saved is not finite from the second on
            name, spoiled = f"{{prefix}}_iter_{{iteration}}", iteration >= {2 * STEP}
            Path(name + ".caffemodel").write_bytes(bytes.fromhex("%s" if spoiled else "%s"))
            Path(name + ".solverstate").write_bytes(bytes([8, iteration]))
        if mode == "diverge" and iteration == {3 * STEP}:
            Path(f"{{prefix}}_iter_{STEP * STEPS}.caffemodel").write_bytes(b"written after it was seen")
            print("I1124 03:04:05.6 7 solver.cpp:239] Iteration {3 * STEP} (50 iter/s, 0.2s/10 iters), loss = nan\\n"
                  "I1124 03:04:05.6 7 solver.cpp:258]     Train net output #0: q_loss = 3 (* 1 = 3 loss)\\n"
                  "I1124 03:04:05.6 7 solver.cpp:258]     Train net output #1: p_loss = nan (* 1 = nan loss)\\n"
                  "I1124 03:04:05.6 7 sgd_solver.cpp:112] Iteration {3 * STEP}, lr = 0.5", file=sys.stderr, flush=True)
            time.sleep(600)
        if mode in ("diverge", "unseen"):
            continue
        if iteration > begin:
            name = f"{{prefix}}_iter_{{iteration}}"
            Path(name + ".caffemodel").write_bytes(bytes.fromhex("%s"))
            Path(name + ".solverstate").write_bytes(bytes([8, iteration]))
            if mode == "stop" and iteration == {2 * STEP}:
                sys.exit(0)
            if mode == "hang" and iteration == {2 * STEP}:
                time.sleep(600)
"""
FROM_SCRATCH = net.DATASETS["fashion_mnist"]._replace(pretraining=())
NET = caffe_pb2.NetParameter(layer=[caffe_pb2.LayerParameter(name="ip")]).SerializeToString()
SPOILED = caffe_pb2.NetParameter(
    layer=[caffe_pb2.LayerParameter(name="ip", blobs=[caffe_pb2.BlobProto(data=[1, float("nan")])])]
).SerializeToString()


@pytest.fixture
def behave(tmp_path, monkeypatch):
    """Puts the stand-ins in; behave(mode) says how the trainer goes on: run, stop, fail or hang."""
    (tmp_path / "stand_in.py").write_text(STAND_IN % (SPOILED.hex(), NET.hex(), NET.hex()))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stand_in", raising=False)
    stand_in = importlib.import_module("stand_in")
    monkeypatch.setattr(net, "texts", stand_in.texts)
    monkeypatch.setitem(net.DATASETS, "fashion_mnist", FROM_SCRATCH)
    empty = weights_report.Report("weights", "net")
    monkeypatch.setattr(training.weights_report, "show", lambda weights, net: empty)
    return lambda mode: monkeypatch.setattr(training, "command", stand_in.command(mode))


@pytest.fixture
def run(tmp_path, behave, make_lists):
    """A run whose folder and data lie in a temporary folder."""
    behave("run")
    (tmp_path / "data/fashion_mnist/train_lmdb").mkdir(parents=True)
    digest = make_lists(tmp_path / "data/fashion_mnist")["train.txt"]
    facts = {"recipe": {"inputs": {"list": digest}}}
    write_json(tmp_path / "data/fashion_mnist/train_lmdb/source.json", facts)
    return Run("fashion_mnist", "dhn", 12, tmp_path)


def test_trains_once_and_says_so(run, capsys):
    training.train(run)
    text = capsys.readouterr().out
    assert "the whole log goes to runs/fashion_mnist-dhn-12/train.log" in text and "iteration" in text
    for name in ("train_val.prototxt", "deploy.prototxt", "solver.prototxt"):
        assert (run.folder / name).exists()
    record = run.record()
    assert run.is_trained() and record["seconds_per_step"] == pytest.approx(0.02)
    assert record["iterations"] == run.solver().max_iter and record["resumed_at"] == []
    lines = (run.folder / "train.csv").read_text().splitlines()
    assert lines[0] == "iteration,loss,lr" and len(lines) == STEPS + 2 and lines[1] == "0,1.0,"
    log = run.log.read_text()
    training.train(run)
    assert "already there and complete" in capsys.readouterr().out
    assert run.log.read_text() == log


def test_damaged_weights_are_trained_again(run):
    training.train(run)
    run.weights().write_bytes(b"damaged")
    assert not run.is_trained()
    training.train(run)
    assert run.is_trained() and run.record()["resumed_at"] == [STEP * 3]


def test_a_stopped_training_goes_on_from_its_newest_whole_snapshot(run, behave, capsys):
    behave("stop")
    with pytest.raises(RunError, match="stopped before its end; run: make resume DATASET=fashion_mnist VARIANT=dhn"):
        training.train(run)
    assert not run.is_trained()
    newest = run.folder / f"dhn_iter_{2 * STEP}.solverstate"
    assert run.newest_snapshot() == (2 * STEP, newest)
    newest.with_suffix(".caffemodel").write_bytes(NET[:-1])  # only the one before it is whole now
    behave("run")
    training.train(run, resume=True)
    assert run.is_trained() and run.record()["resumed_at"] == [STEP]
    assert f"going on from runs/fashion_mnist-dhn-12/dhn_iter_{STEP}.solverstate" in capsys.readouterr().out


def test_resume_needs_a_snapshot(run):
    with pytest.raises(RunError, match="no complete snapshot to resume from; run: make train"):
        training.train(run, resume=True)


def test_a_failed_training_shows_the_end_of_its_log(run, behave):
    behave("fail")
    with pytest.raises(RunError, match=r"(?s)ended with status 1; .*train.log ends with.*Check failed: something"):
        training.train(run)


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_last_good_snapshot(run, behave, capsys):
    behave("diverge")
    with pytest.raises(RunError) as raised:
        training.train(run)
    said = str(raised.value)
    assert "the loss is nan at iteration 30, first in the net's output 'p_loss'; the training was stopped" in said
    assert "The last good snapshot is runs/fashion_mnist-dhn-12/dhn_iter_10.solverstate." in said
    assert "is too high: 'base_lr: 0.5', line 3 of runs/fashion_mnist-dhn-12/solver.prototxt; run: make train" in said
    assert "BITS=12 LR=0.05, which begins again. To go on from the snapshot as it is, run: make resume" in said
    left = sorted(path.name for path in run.folder.glob("*_iter_*"))
    assert left == ["dhn_iter_10.caffemodel", "dhn_iter_10.solverstate"]
    printed = capsys.readouterr().out
    assert "removed what is not good any more: runs/fashion_mnist-dhn-12/dhn_iter_20.solverstate" in printed
    assert run.record()["diverged"]["iteration"] == 30 and not run.is_trained()
    log = run.log.read_text()
    with pytest.raises(RunError) as again:
        training.train(run)
    assert str(again.value) == said and run.log.read_text() == log, "the same training would go the same way"
    behave("run")
    training.train(run, resume=True)
    assert run.is_trained() and run.record()["resumed_at"] == [STEP] and "diverged" not in run.record()


def test_weights_that_are_not_finite_are_no_result_though_no_display_said_so(run, behave):
    behave("unseen")
    with pytest.raises(RunError, match=r"^the weights are not finite at iteration 40; ") as raised:
        training.train(run)
    assert "The last good snapshot is runs/fashion_mnist-dhn-12/dhn_iter_10.solverstate" in str(raised.value)
    assert not run.is_trained() and not run.weights().exists()


def test_an_edited_prototxt_is_trained_as_it_stands_and_said_to_be_edited(run, capsys):
    training.train(run)
    assert run.record()["edited"] == [] == run.edited()
    written = run.folder / "written.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | {"": "1", "1" * 300: "1"}))
    assert run.edited() == []  # what is no file's name
    solver, deploy = run.folder / "solver.prototxt", run.folder / "deploy.prototxt"
    text = solver.read_text()
    for edited in (text.replace("0.5", "0.25"), text + "clip_gradients: 1\n", text.replace("\n", "\r\n")):
        solver.write_bytes(edited.encode())
        assert not run.is_trained(), "another solver is another recipe"
        capsys.readouterr()
        training.train(run)
        said = capsys.readouterr().out
        assert "runs/fashion_mnist-dhn-12/solver.prototxt was edited by hand: line " in said
        assert "moved to runs/fashion_mnist-dhn-12/earlier-" in said and "It is trained as it stands" in said
        assert solver.read_bytes() == edited.encode() and run.is_trained()
        assert run.record()["edited"] == ["solver.prototxt"] == run.edited()
    solver.write_text(text.replace("0.5", "0.25"))
    (run.folder / "train_val.prototxt").write_text("name: 'mine'\n")
    deploy.unlink()
    training.train(run)
    said = capsys.readouterr().out
    assert "line 3 is 'base_lr: 0.25', where prototxt/net.py writes 'base_lr: 0.5'. It is trained as it stands" in said
    assert "train_val.prototxt was edited by hand: line 1 is" in said and deploy.exists()
    assert run.record()["edited"] == ["solver.prototxt", "train_val.prototxt"]
    log = run.log.read_text()
    training.train(run)
    assert "already there and complete" in capsys.readouterr().out and run.log.read_text() == log
    solver.unlink()
    training.train(run)
    assert solver.read_text() == text and run.record()["edited"] == ["train_val.prototxt"]


def test_settings_and_an_edited_file_contradict_each_other(run):
    training.train(run, settings={"base_lr": 0.1})
    solver = run.folder / "solver.prototxt"
    edited = solver.read_text().replace("base_lr: 0.1", "base_lr: 0.25")
    solver.write_text(edited)
    for rate in (0.1, 0.2):
        with pytest.raises(
            RunError, match=rf"line 3 is 'base_lr: 0.25', .*\. So LR={rate} would not be what is trained"
        ):
            training.train(run, settings={"base_lr": rate})
    assert solver.read_text() == edited and run.record()["settings"] == {"base_lr": 0.1}
    solver.unlink()
    training.train(run, settings={"base_lr": 0.2})
    assert "base_lr: 0.2" in solver.read_text() and run.record()["edited"] == []


def test_settings_are_kept_until_others_are_typed(run, behave, capsys):
    behave("stop")
    with pytest.raises(RunError, match="stopped before its end"):
        training.train(run, settings={"base_lr": 0.1, "momentum": 0.8})
    behave("run")
    capsys.readouterr()
    training.train(run, resume=True)
    said = capsys.readouterr().out
    assert (
        'fashion_mnist-dhn-12: LR=0.1 SET="momentum=0.8", as before (runs/fashion_mnist-dhn-12/solver.prototxt' in said
    )
    assert run.is_trained() and run.record()["settings"] == {"base_lr": 0.1, "momentum": 0.8}
    assert run.record()["resumed_at"] == [2 * STEP] and "base_lr: 0.1" in (run.folder / "solver.prototxt").read_text()
    training.train(run)
    training.train(run, settings={"base_lr": 0.1, "momentum": 0.8})
    said = capsys.readouterr().out
    assert said.count("already there and complete") == 2 and "other settings" not in said
    training.train(run, settings={"base_lr": 0.3})
    said = capsys.readouterr().out
    assert "other settings than before: LR=0.3 (was 0.1), momentum is not set any more (was 0.8)" in said
    assert "moved to runs/fashion_mnist-dhn-12/earlier-1" in said and run.record()["settings"] == {"base_lr": 0.3}
    (run.folder / "solver.prototxt").unlink()
    training.train(run)
    assert run.record()["settings"] == {} and "base_lr: 0.5" in (run.folder / "solver.prototxt").read_text()


def test_progress_says_how_long_it_takes_at_most_every_ten_seconds(run, capsys, monkeypatch):
    training.train(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iteration ")]
    # the stand-in's displays come at once: the first, and the first that has iterations behind it
    first = "iteration 10 of 40, loss = 0.0909091; about 1 s left at 0.02 s an iteration"
    assert lines == ["iteration 0 of 40, loss = 1", first]
    run.weights().unlink()
    monkeypatch.setattr(training, "EVERY", 0)
    training.train(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("iteration ")]
    assert lines[-1] == "iteration 40 of 40, loss = 0.0243902; about 0 s left at 0.02 s an iteration"


def test_the_command_line_of_settings(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(train, "train", lambda *words, **named: seen.append((words, named)))
    assert train.main(["fashion_mnist", "--bits", "12", "--set", "base_lr=0.1", "--set", "max_iter=7"]) == 0
    assert train.main(["fashion_mnist", "--variant", "pretraining"]) == 0
    assert [named["settings"] for _, named in seen] == [{"max_iter": 7, "base_lr": 0.1}, None]
    assert seen[1][0][0] == Run("fashion_mnist", "pretraining", 0)
    assert train.main(["fashion_mnist", "--set", "rate=1"]) == 1
    assert "there is no setting 'rate'" in capsys.readouterr().err
    assert train.main(["fashion_mnist", "--resume", "--set", "base_lr=1"]) == 1
    assert "leave --set out" in capsys.readouterr().err


def test_a_prototxt_of_an_earlier_recipe_is_no_edit(run, monkeypatch, capsys):
    training.train(run)
    before = net.texts

    def slower(*words):
        return {name: text.replace("0.5", "0.1") for name, text in before(*words).items()}

    monkeypatch.setattr(net, "texts", slower)
    training.train(run)
    assert "moved to runs/fashion_mnist-dhn-12/earlier-1" in capsys.readouterr().out
    assert "base_lr: 0.1" in (run.folder / "solver.prototxt").read_text()
    (run.folder / WRITTEN).unlink()  # nobody knows who wrote them
    monkeypatch.setattr(net, "texts", before)
    training.train(run)
    assert "solver.prototxt was edited by hand" in capsys.readouterr().out and run.edited() == ["solver.prototxt"]


def test_another_recipe_never_overwrites_or_resumes(run, capsys):
    training.train(run)
    before = run.weights().read_bytes()
    built = run.data / "train_lmdb" / "source.json"
    write_json(built, {**json.loads(built.read_text()), "other": "images"})
    assert not run.is_trained()
    training.train(run)
    assert "moved to runs/fashion_mnist-dhn-12/earlier-1" in capsys.readouterr().out
    assert (run.folder / "earlier-1" / run.weights().name).read_bytes() == before
    assert run.is_trained() and run.record()["resumed_at"] == []


def test_the_run_s_folder_tells_net_and_seed_where_they_are_not_the_default(tmp_path):
    assert Run("cifar10", "dhn", 48, tmp_path).folder == tmp_path / "runs" / "cifar10-dhn-48"
    other = Run("cifar10", "dhn_q", 12, tmp_path, net="caffenet", seed=2)
    assert other.name == "cifar10-dhn_q-12-caffenet-seed2"
    assert other.make_command("score") == "run: make score DATASET=cifar10 VARIANT=dhn_q BITS=12 NET=caffenet SEED=2"
    options = command_line.run_parser("").parse_args(["cifar10", "--net", "alexnet", "--seed", "1"])
    assert command_line.run_of(options) == Run("cifar10", "dhn", 48)


def test_the_command_starts_from_weights_or_a_snapshot_on_the_gpu_that_is_named(run, monkeypatch):
    (run.folder).mkdir(parents=True)
    monkeypatch.undo()
    tail = training.command(run, None, "w.caffemodel", 2)[4:]
    assert tail == ["-solver", "runs/fashion_mnist-dhn-12/solver.prototxt", "-weights", "w.caffemodel", "-gpu", "2"]
    assert training.command(run, "s.solverstate", "w.caffemodel")[-2:] == ["-snapshot", "s.solverstate"]
    assert training.command(run, None)[4:] == tail[:2]


def test_fine_tuning_keeps_the_weights_it_began_with(run, behave, tmp_path, capsys):
    weights = tmp_path / "pretrained.caffemodel"
    weights.write_bytes(NET)
    behave("stop")
    with pytest.raises(RunError, match="stopped before its end"):
        training.train(run, weights=str(weights), gpu=0)
    assert (tmp_path / "given").read_text() == f"{weights} 0"
    assert "fine-tuning from pretrained.caffemodel" in capsys.readouterr().out
    behave("run")
    training.train(run, resume=True)  # WEIGHTS need not be named again
    assert run.is_trained() and run.record()["resumed_at"] == [2 * STEP]
    assert run.record()["initial_weights_sha256"] == sha256(weights)
    training.train(run, weights=str(weights))
    assert "already there and complete" in capsys.readouterr().out
    weights.write_bytes(NET + NET)  # other weights: another recipe
    training.train(run, weights=str(weights))
    assert "earlier-1" in capsys.readouterr().out and run.record()["resumed_at"] == []
    with pytest.raises(RunError, match="WEIGHTS=nowhere: there is no such file"):
        training.train(run, weights="nowhere")


def test_a_data_sets_pretraining_is_trained_first_and_once(run, behave, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(net.DATASETS, "fashion_mnist", FROM_SCRATCH._replace(pretraining=(("max_iter", 9, ""),)))
    behave("stop")
    with pytest.raises(RunError, match=r"stopped before its end; run: make train DATASET=fashion_mnist$"):
        training.train(run)
    assert not run.folder.exists(), "the variant waits for the weights it starts from"
    behave("run")
    training.train(run)
    first = tmp_path / "runs/fashion_mnist-pretraining"
    assert (tmp_path / "given").read_text() == f"{first}/pretraining_iter_{STEP * STEPS}.caffemodel "
    assert run.is_trained()
    capsys.readouterr()
    other = Run("fashion_mnist", "dhn_q", 24, tmp_path)
    training.train(other)
    assert "pretraining_iter_40.caffemodel: already there and complete" in capsys.readouterr().out
    assert other.record()["initial_weights_sha256"] == run.record()["initial_weights_sha256"]
    mine = tmp_path / "mine.caffemodel"
    mine.write_bytes(NET + NET)
    third = Run("fashion_mnist", "dhn", 32, tmp_path)
    training.train(third, weights=str(mine))
    training.train(third)
    assert third.record()["initial_weights"] == str(mine), "weights that were named stay"


def test_codes_that_stay_at_0_are_said_and_the_training_goes_on(run, behave, monkeypatch, capsys):
    monkeypatch.setattr(code_watch, "SETTLED", STEP)
    monkeypatch.setattr(code_watch, "UNTIL", 3 * STEP)
    behave("stuck")
    training.train(run)
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("fashion_mnist-dhn-12: codes stay at 0: pairwise_loss is that of codes of 0, 0.693") == 1
    assert run.is_trained()


def squeezenet_weights(path, *more: str) -> str:
    """A caffemodel with weights of conv1, and of the layers that are named."""
    blob = caffe_pb2.BlobProto(data=[1], shape=caffe_pb2.BlobShape(dim=[1]))
    layers = [caffe_pb2.LayerParameter(name=name, blobs=[blob]) for name in ("conv1", *more)]
    path.write_bytes(caffe_pb2.NetParameter(layer=layers).SerializeToString())
    return str(path)


def test_weights_without_batch_norm_go_into_the_pretraining(run, tmp_path, capsys):
    run = Run("fashion_mnist", "dhn", 12, tmp_path, net="squeezenet")
    imagenet = squeezenet_weights(tmp_path / "imagenet.caffemodel")
    training.train(run, weights=imagenet)
    first = Run("fashion_mnist", net.PRETRAINING, 0, tmp_path, net="squeezenet")
    assert (tmp_path / "given").read_text().split() == [str(first.weights())]
    origin = {"initial_weights": imagenet, "initial_weights_sha256": sha256(imagenet)}
    assert run.record()["pretraining"] == origin and origin.items() <= first.record().items()
    assert run.record()["initial_weights"] == str(first.weights())
    capsys.readouterr()
    training.train(run)
    assert capsys.readouterr().out.count("already there and complete") == 2, "WEIGHTS need not be named again"
    with pytest.raises(RunError, match="WEIGHTS=nowhere: there is no such file"):
        training.train(run, weights="nowhere")


def test_weights_with_batch_norm_go_into_the_variant(run, tmp_path):
    run = Run("fashion_mnist", "dhn", 12, tmp_path, net="squeezenet")
    weights = squeezenet_weights(tmp_path / "classifier.caffemodel", "pool9/norm")
    training.train(run, weights=weights)
    assert run.record()["initial_weights"] == weights and "pretraining" not in run.record()
    assert not (tmp_path / "runs/fashion_mnist-pretraining-squeezenet").exists()


def test_a_pretraining_that_diverged_goes_on_with_make_resume(run, behave, tmp_path, monkeypatch):
    monkeypatch.setitem(net.DATASETS, "fashion_mnist", FROM_SCRATCH._replace(pretraining=(("max_iter", 9, ""),)))
    behave("diverge")
    with pytest.raises(RunError, match="the loss is nan at iteration 30") as raised:
        training.train(run)
    said = "To go on from the snapshot as it is, run: make resume DATASET=fashion_mnist VARIANT=pretraining."
    assert str(raised.value).endswith(said)
    behave("run")
    with pytest.raises(RunError, match="the loss is nan at iteration 30"):
        training.train(run)
    with pytest.raises(RunError, match="runs/fashion_mnist-dhn-12 holds no complete snapshot"):
        training.train(run, resume=True)  # as ever, of the variant itself
    training.train(run)
    first = training.replace(run, variant=net.PRETRAINING, bits=0)
    assert run.is_trained() and first.is_trained() and first.record()["resumed_at"] == [STEP]


def test_weights_that_do_not_fit_stop_before_the_training(run, tmp_path, monkeypatch):
    weights = tmp_path / "other.caffemodel"
    weights.write_bytes(NET)
    row = weights_report.Row("fc6", weights_report.MISMATCHED, ((2, 3),), ((4, 3),))
    monkeypatch.setattr(training.weights_report, "show", lambda *where: weights_report.Report("w", "n", [row]))
    with pytest.raises(RunError, match="does not fit the net in fc6"):
        training.train(run, weights=str(weights))
    assert not run.log.exists()


def test_weights_that_are_gone_are_named(run, behave, tmp_path):
    weights = tmp_path / "pretrained.caffemodel"
    weights.write_bytes(NET)
    training.train(run, weights=str(weights))
    run.weights().unlink()
    for snapshot in run.folder.glob("*.solverstate"):
        snapshot.unlink()
    weights.unlink()
    with pytest.raises(RunError, match=r"starts from .*pretrained.caffemodel, which is not there any more; run: make"):
        training.train(run)


def test_lists_are_checked_before_anything_is_trained(run):
    (run.data / "database.txt").write_text((run.data / "query.txt").read_text())
    digests = {f"{name}.txt": sha256(run.data / f"{name}.txt") for name in splits.LISTS}
    write_json(run.data / "split.json", {"seed": 0, "sha256": digests})
    with pytest.raises(splits.SplitError, match=r"0 stands in .*query.txt and in .*database.txt"):
        training.train(run)
    assert not run.folder.exists()


def test_missing_data_is_named(run):
    (run.data / "train_lmdb" / "source.json").unlink()
    with pytest.raises(RunError, match="is missing; run: make data DATASET=fashion_mnist"):
        training.train(run)


def test_a_driver_killed_ends_its_trainer_and_its_work_is_used(run, tmp_path):
    """kill -9 of the driver: `caffe train` ends with it, and the next training goes on from its snapshot at once."""
    script = (
        "import net, stand_in\nfrom pathlib import Path\n"
        "from dhn.runs import training\nfrom dhn.runs.folder import Run\n"
        "net.texts, training.command = stand_in.texts, stand_in.command('hang')\n"
        "training._pretrained = lambda run, *others: None\n"
        f"training.train(Run('fashion_mnist', 'dhn', 12, Path({str(tmp_path)!r})))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 60
    while not (run.folder.exists() and run.newest_snapshot() and run.newest_snapshot()[0] == 2 * STEP):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    training.train(run)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert run.is_trained() and run.record()["resumed_at"] == [2 * STEP]


def test_a_record_cut_short_counts_for_nothing(run):
    training.train(run)
    text = (run.folder / "training.json").read_text()
    assert json.loads(text)["weights"] == run.weights().name
    (run.folder / "training.json").write_text(text[: len(text) // 2])
    assert run.record() == {} and not run.is_trained()


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda facts: facts.pop("initial_weights"), "it has initial_weights_sha256 alone"),
        (lambda facts: facts.pop("initial_weights_sha256"), "it has initial_weights alone"),
        (lambda facts: facts.update(initial_weights=None), "'initial_weights' cannot be None"),
        (lambda facts: facts.update(resumed_at=None), "'resumed_at' cannot be None"),
        (lambda facts: facts.update(diverged={"iteration": 3}), "'diverged' cannot be {'iteration': 3}"),
    ],
    ids=["no path", "no digest", "null", "resumed", "diverged"],
)
def test_a_damaged_record_is_named(run, tmp_path, damage, words):
    weights = tmp_path / "w.caffemodel"
    weights.write_bytes(NET)
    training.train(run, weights=str(weights))
    path = run.folder / "training.json"
    facts = json.loads(path.read_text())
    damage(facts)
    write_json(path, facts)
    run.weights().unlink()
    with pytest.raises(ValueError) as error:
        training.train(run)
    assert str(error.value).startswith(f"{path}: is damaged: ") and words in str(error.value)


def test_state_and_model_must_agree(run):
    run.folder.mkdir(parents=True)
    state = run.folder / "dhn_iter_5.solverstate"
    state.write_bytes(caffe_pb2.SolverState(iter=4).SerializeToString())
    state.with_suffix(".caffemodel").write_bytes(NET)
    assert run.newest_snapshot() is None
    state.write_bytes(caffe_pb2.SolverState(iter=5).SerializeToString())
    assert run.newest_snapshot() == (5, state)
