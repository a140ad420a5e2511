"""Settings of a run or a recipe: names, checks, places in the files, and the command that writes them."""

import json
import re
import shlex
from pathlib import Path

import dataset_table
import net
import pytest
import run_settings
from caffe.proto import caffe_pb2
from google.protobuf import text_format

WORDS = ["max_iter=20", "base_lr=1e-2", "momentum=0.95", "stepvalue=10,20", "test_initialization=false"]
WORDS += ["batch_size=32", "mirror=false", "crop=24", "mean_value=7.5", "lambda=0.1", "similar_weight=balanced"]


def written(folder, words, dataset="fashion_mnist", variant="dhn", name=None):
    """The files that a run's settings make: texts by name, the solver, and the layers of train_val.prototxt by name."""
    bits = 0 if variant == net.PRETRAINING else 48
    texts = net.texts(dataset, variant, bits, str(folder), name, settings=run_settings.parse(words))
    solver = text_format.Parse(texts["solver.prototxt"], caffe_pb2.SolverParameter())
    layers = text_format.Parse(texts["train_val.prototxt"], caffe_pb2.NetParameter()).layer
    return (
        texts,
        solver,
        {f"{layer.name} test" if index == 1 else layer.name: layer for index, layer in enumerate(layers)},
    )


def param_str(layer):
    return json.loads(layer.python_param.param_str or "{}")


def test_settings_stand_in_the_files_with_their_origin(tmp_path):
    texts, solver, layers = written(tmp_path, WORDS)
    assert (solver.max_iter, solver.test_initialization, list(solver.stepvalue)) == (20, False, [10, 20])
    assert (solver.base_lr, solver.momentum) == (pytest.approx(0.01), pytest.approx(0.95))
    data, test = param_str(layers["data"]), param_str(layers["data test"])
    assert (data["batch_size"], data["mirror"], data["crop"], data["mean_value"]) == (32, False, 24, 7.5)
    assert (test["batch_size"], test["crop"], test["mean_value"]) == (100, 24, 7.5) and "mirror" not in test
    assert layers["quantization_loss"].loss_weight == [pytest.approx(0.1)]
    assert param_str(layers["pairwise_loss"]) == {"similar_weight": "balanced"}
    shape = text_format.Parse(texts["deploy.prototxt"], caffe_pb2.NetParameter()).layer[0].input_param.shape[0]
    assert list(shape.dim) == [100, 1, 24, 24]
    assert "# set by LR=0.01; without: 0.003\nbase_lr: 0.01\n" in texts["solver.prototxt"]
    assert '# set by SET="momentum=0.95"; without: 0.9\nmomentum: 0.95\n' in texts["solver.prototxt"]
    assert "# set by BATCH=32; without: 64\n" in texts["train_val.prototxt"]
    assert "# set by CROP=24; without: not set\n" in texts["train_val.prototxt"]


def test_the_command_of_the_first_line_writes_the_same_files(tmp_path):
    texts, _, _ = written(tmp_path / "a run", WORDS)
    line = texts["solver.prototxt"].splitlines()[0]
    assert "--set base_lr=0.01" in line
    net.main(shlex.split(line.split("net.py ")[1]))
    for name, text in texts.items():
        assert (tmp_path / "a run" / name).read_text() == text


def test_however_they_are_typed_settings_make_the_same_files(tmp_path):
    assert written(tmp_path, WORDS)[0] == written(tmp_path, ["base_lr=0.010", *reversed(WORDS[2:]), "max_iter=20.0"])[0]
    assert run_settings.parse(run_settings.words(run_settings.parse(WORDS))) == run_settings.parse(WORDS)


def test_without_settings_nothing_changes(tmp_path):
    assert net.texts("fashion_mnist", "dhn", 48, str(tmp_path)) == written(tmp_path, [])[0]


def test_settings_of_the_pretraining_are_its_solvers(tmp_path):
    texts, solver, layers = written(tmp_path, ["base_lr=0.5", "batch_size=8"], variant=net.PRETRAINING)
    assert solver.base_lr == 0.5 and solver.max_iter == 1000 and param_str(layers["data"])["batch_size"] == 8
    assert "# set by LR=0.5; without: 0.01\nbase_lr: 0.5" in texts["solver.prototxt"]


def test_another_size_of_image(tmp_path):
    _, _, layers = written(tmp_path, ["resize=80", "crop=64"], "cifar10", name="alexnet")
    assert [param_str(layers["data"])[key] for key in ("resize", "crop")] == [80, 64]
    with pytest.raises(ValueError, match=r"crop 227 is larger than the images that it is cut from, 80x80; set resize"):
        written(tmp_path, ["resize=80"], "cifar10", name="alexnet")
    with pytest.raises(ValueError, match=r"crop 29 is larger than .* 28x28"):
        written(tmp_path, ["crop=29"])


@pytest.mark.parametrize(
    "word, message",
    [
        ("base_lr", "--set base_lr: expected NAME=VALUE, as base_lr=0.01"),
        ("base_lr=fast", "--set base_lr=fast: expected a number, found 'fast'"),
        ("base_lr=nan", "expected a number, found 'nan'"),
        ("base_lr=0.1 max_iter: 3", "expected a number, found '0.1 max_iter: 3'"),
        ("max_iter=1.5", "expected a whole number, found '1.5'"),
        ("max_iter=0", "expected a whole number of at least 1, found '0'"),
        ("max_iter=99999999999", "--set max_iter=99999999999: .*range"),
        ("momentum=-1", "expected a number of at least 0, found '-1'"),
        ("stepvalue=1,x", "expected whole numbers, found '1,x'"),
        ("lr_policy=stp", "expected one of fixed, step, exp, inv, multistep, poly, sigmoid, found 'stp'"),
        ("solver_mode=TPU", "expected one of CPU, GPU, found 'TPU'"),
        ("mirror=1", "expected true or false, found '1'"),
        ("similar_weight=0", "expected a number above 0, or \"balanced\", found '0'"),
        ("learning_rate=1", r"there is no setting 'learning_rate'; there are batch_size \(BATCH=\), .*base_lr \(LR=\)"),
        ("snapshot_prefix=x", "there is no setting 'snapshot_prefix'"),
        ("random_seed=2", "there is no setting 'random_seed'"),
    ],
)
def test_refusals(word, message):
    with pytest.raises(ValueError, match=message):
        run_settings.parse([word])


def test_set_twice():
    with pytest.raises(ValueError, match="--set base_lr=2: base_lr is set twice"):
        run_settings.parse(["base_lr=1", "base_lr=2"])


@pytest.mark.parametrize(
    "variant, word", [("dhn_q", "lambda=1"), ("pretraining", "lambda=1"), ("pretraining", "similar_weight=2")]
)
def test_a_loss_that_a_variant_does_not_have(tmp_path, variant, word):
    with pytest.raises(ValueError, match=f"{variant} has no such loss to weight"):
        written(tmp_path, [word], variant=variant)


def test_every_scalar_field_of_the_solver_has_its_place_or_is_kept_back(tmp_path):
    known = {field.name for field in caffe_pb2.SolverParameter.DESCRIPTOR.fields if field.message_type is None}
    assert set(run_settings.SOLVER) | set(run_settings.KEPT) == known
    for name, field in run_settings.SOLVER.items():
        kind = run_settings.kind_of(field)[0]
        value = {"true or false": "true"}.get(kind, kind[len("one of ") :].split(",")[0] if "one of" in kind else "3")
        assert name in written(tmp_path, [f"{name}={value}"])[0]["solver.prototxt"]


def test_a_file_is_not_written_into_the_committed_ones(capsys):
    with pytest.raises(SystemExit):
        net.main(["fashion_mnist", "--set", "base_lr=1"])
    assert "--set goes with --out" in capsys.readouterr().err


def test_make_names_the_same_settings():
    text = (Path(__file__).resolve().parents[2] / "Makefile").read_text()
    assert dict(re.findall(r"\$\(call setting,(\w+),(\w+)\)", text)) == run_settings.MAKE


def test_differences_in_words():
    before, after = run_settings.parse(["base_lr=0.1", "max_iter=9"]), run_settings.parse(["base_lr=0.2", "crop=3"])
    said = "LR=0.2 (was 0.1), max_iter is not set any more (was 9), CROP=3 (was not set)"
    assert run_settings.differences(before, after) == said
    assert run_settings.differences(before, before) == ""
    typed = run_settings.typed(run_settings.parse(WORDS))
    assert typed.startswith("ITERATIONS=20 LR=0.01 BATCH=32 CROP=24 LAMBDA=0.1 ")
    assert 'SET="test_initialization=false momentum=0.95 ' in typed


def test_without_a_makefile_the_option_of_the_commands_is_typed(monkeypatch, tmp_path):
    monkeypatch.setattr(run_settings, "BY_MAKE", False)
    settings = run_settings.parse(["base_lr=0.2", "momentum=0.95"])
    assert run_settings.typed(settings) == "--set base_lr=0.2 --set momentum=0.95" and run_settings.typed({}) == ""
    assert run_settings.differences({}, settings).startswith("--set base_lr=0.2 (was not set)")
    with pytest.raises(ValueError, match=r"there is no setting 'lr'; there are batch_size, mirror") as caught:
        run_settings.parse(["lr=1"])
    assert "=)" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^--set lambda=1: dhn_q has no such loss to weight"):
        written(tmp_path, ["lambda=1"], variant="dhn_q")


# -- settings of a data set's recipe

OWN = {"net": {"batch_size": 16, "crop": 64, "resize": 72}, "solver": {"base_lr": 0.5, "lr_policy": "fixed"}}


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """birds(training) writes split.json of a data set of one's own."""
    for module in (net, dataset_table):
        monkeypatch.setattr(module, "ROOT", str(tmp_path))

    def write(training):
        folder = tmp_path / "data" / "birds"
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"counts": {"query": 340}, "label_names": ["a", "b"], "training": training}
        (folder / "split.json").write_text(json.dumps(facts))

    return write


def test_the_recipes_settings_are_in_the_files(birds, tmp_path):
    birds({**OWN, "pretraining": {"max_iter": 7}})
    texts, solver, layers = written(tmp_path / "runs" / "x", [], "birds", name="squeezenet")
    assert solver.lr_policy == "fixed" and param_str(layers["data"])["crop"] == 64
    assert "# set by the recipe of birds: base_lr 0.5; without: 0.001\nbase_lr: 0.5\n" in texts["solver.prototxt"]
    assert "# set by the recipe of birds: batch_size 16; without: 64\n" in texts["train_val.prototxt"]
    assert "--set" not in texts["solver.prototxt"], "the command finds them where it found them"
    _, first, _ = written(tmp_path / "runs" / "y", [], "birds", "pretraining", "squeezenet")
    assert first.max_iter == 7 and first.base_lr != 0.5
    texts, solver, _ = written(tmp_path / "runs" / "x", ["base_lr=0.25"], "birds", name="squeezenet")
    assert solver.base_lr == 0.25 and "# set by LR=0.25; without: 0.5\n" in texts["solver.prototxt"]


@pytest.mark.parametrize(
    "training, message",
    [
        ({"solver": {"base_lr": "fast"}}, "split.json, solver, base_lr: expected a number, found 'fast'"),
        ({"solver": {"crop": 3}}, "split.json, solver, crop: there is no setting 'crop'; there are test_iter"),
        ({"net": {"base_lr": 3}}, r"split.json, net, base_lr: there is no setting 'base_lr'; there are batch_size"),
        ({"net": [3]}, "split.json, net: expected an object of settings by name"),
    ],
)
def test_settings_of_a_recipe_that_cannot_be(birds, tmp_path, training, message):
    birds(training)
    with pytest.raises(ValueError, match=message):
        written(tmp_path / "x", [], "birds", name="alexnet")
