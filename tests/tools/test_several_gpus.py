"""make train GPUS=0,1: each process gets its part of the recipe's batch."""

from __future__ import annotations

import json
from collections.abc import Sequence

import caffe
import miniatures
import net
import pytest
import train
from caffe.proto import caffe_pb2, text
from dhn.experiments import scored_run
from dhn.runs import several_gpus, training
from dhn.runs.folder import Run, RunError


@pytest.fixture
def run(tmp_path):
    """A run's prototxt files, as they are written for Fashion-MNIST."""
    made = Run("fashion_mnist", "dhn", 12, root=tmp_path)
    made.folder.mkdir(parents=True)
    for name, content in net.texts("fashion_mnist", "dhn", 12, str(made.folder), None, 1, {}).items():
        (made.folder / name).write_text(content)
    return made


def batch_sizes(message: caffe_pb2.NetParameter) -> list[int]:
    return [json.loads(layer.python_param.param_str)["batch_size"] for layer in message.layer if not layer.bottom]


def test_the_training_batch_is_divided_and_nothing_else(run):
    said = several_gpus.write_solver(run, 4)
    assert said.endswith("4 processes with 16 of the recipe's 64 images a batch each, so the objective is the recipe's")
    found = text.read_solver(run.folder / several_gpus.solver_name(4))
    expected, whole = run.solver(), text.read_net(run.folder / "train_val.prototxt")
    assert batch_sizes(found.net_param) == [16, 100] and batch_sizes(whole) == [64, 100]
    for layer in (found.net_param.layer[0], whole.layer[0]):
        settings = json.loads(layer.python_param.param_str)
        del settings["batch_size"]
        layer.python_param.param_str = json.dumps(settings)
    assert found.net_param == whole
    found.ClearField("net_param")
    expected.ClearField("net")
    assert found == expected


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("", "but n (BatchNorm) subtracts the mean and divides by the standard deviation of each process's own images"),
        ("batch_norm_param { use_global_stats: true }", None),
        ("include { phase: TEST }", None),
    ],
)
def test_statistics_of_the_batch_are_named(run, fields, sentence):
    data = 'layer { name: "x" type: "Data" top: "x" data_param { batch_size: 6 source: "a" } }'
    norm = f'layer {{ name: "n" type: "BatchNorm" bottom: "x" top: "n" {fields} }}'
    (run.folder / "train_val.prototxt").write_text(data + norm)
    found = several_gpus.write_solver(run, 2)
    assert (sentence or "so the objective is the recipe's") in found
    assert ("so the objective is the recipe's" in found) == (sentence is None)


def test_a_data_layer_of_caffe_is_divided_too(run):
    path = run.folder / "train_val.prototxt"
    path.write_text(
        'layer { name: "d" type: "Data" top: "x" include { phase: TRAIN } data_param { batch_size: 6 source: "a" } }'
        'layer { name: "d" type: "Data" top: "x" include { phase: TEST } data_param { batch_size: 5 source: "b" } }'
    )
    assert "3 of the recipe's 6 images" in several_gpus.write_solver(run, 2)
    layers = text.read_solver(run.folder / several_gpus.solver_name(2)).net_param.layer
    assert [layer.data_param.batch_size for layer in layers] == [3, 5]


def test_a_batch_that_cannot_be_divided_is_refused(run):
    with pytest.raises(RunError, match=r"batch of 64 images cannot be divided among 3 GPUs.*\(2, 4, 8, 16, 32, 64\)"):
        several_gpus.write_solver(run, 3)
    assert not (run.folder / several_gpus.solver_name(3)).exists()


@pytest.mark.parametrize("size", ["-4", '"64"', "6.5", "[64", "true"])
def test_a_batch_size_that_is_none_is_refused(run, size):
    path = run.folder / "train_val.prototxt"
    path.write_text(path.read_text().replace('"batch_size": 64', f'"batch_size": {size}').replace("'{", "' {"))
    with pytest.raises(RunError, match=r"train_val\.prototxt: .* a whole number batch_size in param_str, found '"):
        several_gpus.write_solver(run, 2)


def test_the_command_names_solver_and_gpus(run):
    words = training.command(run, None, "w.caffemodel", [0, 2])[3:]
    assert words == [
        "train", "-solver", "runs/fashion_mnist-dhn-12/solver_of_2.prototxt", "-weights", "w.caffemodel", "-gpu", "0,2",
    ]  # fmt: skip
    assert training.command(run, None, None, [1])[3:] == [*training.command(run, None, None, 1)[3:]]
    assert training.command(run, "s", None, 1)[4:] == [
        "-solver", "runs/fashion_mnist-dhn-12/solver.prototxt", "-snapshot", "s", "-gpu", "1",
    ]  # fmt: skip


def test_gpu_and_gpus_exclude_each_other(capsys):
    assert train.main(["fashion_mnist", "--gpu", "0", "--gpus", "0,1"]) == 1
    assert "--gpus names all GPUs; leave --gpu out" in capsys.readouterr().err


@pytest.fixture
def on_cpus(monkeypatch):
    """`caffe train` has a process on the CPU where a GPU is named."""
    command = training.command

    def make(run: Run, snapshot: str | None, weights: str | None = None, gpu: training.Gpus = None) -> list[str]:
        *words, flag, numbers = command(run, snapshot, weights, gpu)
        assert isinstance(gpu, Sequence) and flag == "-gpu"
        return [*words, "-processes", str(len(numbers.split(",")))]

    monkeypatch.setattr(training, "command", make)


@pytest.mark.slow
def test_a_run_in_two_processes_is_trained_resumed_and_scored(tmp_path, on_cpus, capsys):
    """What make train, resume and score do, with processes on CPUs for the GPUs."""
    data, weights = tmp_path / "data" / "fashion_mnist", str(tmp_path / "w.caffemodel")
    data.mkdir(parents=True)
    miniatures.fashion_mnist(data)
    net.write("fashion_mnist", "dhn", 12, str(tmp_path / "nets"))
    caffe.set_random_seed(1)
    caffe.Net(str(tmp_path / "nets" / "deploy.prototxt"), caffe.TEST).save(weights)
    run = Run("fashion_mnist", "dhn", 12, root=tmp_path)
    training.train(run, weights=weights, gpu=[0, 1], settings={"max_iter": 8, "snapshot": 4, "batch_size": 10})
    assert "2 processes with 5 of the recipe's 10 images a batch each" in capsys.readouterr().out
    log = run.log.read_text()
    assert log.count("Starting Optimization") == 1 and run.record()["processes"] == 2
    whole = run.weights().read_bytes()

    run.weights().unlink()
    run.weights().with_suffix(".solverstate").unlink()
    training.train(run, resume=True, gpu=[0, 1])
    assert run.weights().read_bytes() == whole, "it went on from iteration 4 to the same weights"
    assert run.record()["resumed_at"] == [4]
    scored_run.score(run)
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert (metrics["queries"], metrics["database"]) == (10, 20) and metrics["map_expected"] > 0
