"""The harness: ratios of paired samples, processes that rest, the record; and that the sides compute the same."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import batch_nets
import bench
import caffe
import data_layers
import harness
import limit
import numpy as np
import prepared
import pytest
import record
import scoring
import torch
import torch_nets
import torch_training
from caffe.proto import caffe_pb2
from harness import Goal, Process, Row, RowError, Side
from rows import ROWS

ROUNDS = [{"engine": {"seconds": mine, "peak": 3e9}, "BVLC": {"seconds": other, "peak": 2e9}}
          for mine, other in ((1.0, 2.0), (3.0, 4.0), (10.0, 100.0))]  # fmt: skip


def sleeping(seconds: float, makes: str) -> Side:
    script = f"import os, time; os.mkdir({makes!r}); time.sleep({seconds})"
    return Side("commands", {"command": ["PYTHON", "-c", script], "makes": makes, "count": 1})


def tiny(**options: object) -> Row:
    sides = {"engine": sleeping(0.01, "a"), "other": sleeping(0.5, "b")}
    return Row("nothing", sides, (Goal(0.9, to="other"), Goal(5.0)), 60, rounds=(2, 2), **options)


def test_a_ratio_is_that_of_one_round_and_the_median_counts():
    found = Goal(0.6, to="BVLC").result(ROUNDS)
    assert (found["value"], found["low"], found["high"], found["met"]) == (0.5, 0.1, 0.75, True)
    assert found["medians"] == {"engine": 3.0, "BVLC": 4.0}
    assert not Goal(0.4, to="BVLC").result(ROUNDS)["met"]


def test_times_as_fast_a_multiple_and_a_figure_alone():
    faster = Goal(2.0, to="BVLC", faster=True).result(ROUNDS)
    assert (faster["value"], faster["low"], faster["high"], faster["met"]) == (2.0, 4 / 3, 10.0, True)
    assert not Goal(2.1, to="BVLC", faster=True).result(ROUNDS)["met"]
    assert Goal(0.05, to="BVLC", per=10).result(ROUNDS)["value"] == 0.05
    alone = Goal(2.9e9, figure="peak").result(ROUNDS)
    assert (alone["value"], alone["met"], alone["medians"]) == (3e9, False, {"engine": 3e9})


@pytest.mark.parametrize("fresh", [False, True])
def test_a_row_is_measured_by_turns(tmp_path, fresh):
    rounds = harness.measure(tiny(fresh=fresh), tmp_path)
    assert len(rounds) == 2 and all(list(each) == ["engine", "other"] for each in rounds)
    for each in rounds:
        assert 0.01 < each["engine"]["seconds"] < each["other"]["seconds"] and each["other"]["seconds"] > 0.5
        assert each["engine"]["peak"] > 1e6


def test_a_side_rests_while_it_is_not_asked(tmp_path):
    process = Process("engine", sleeping(0.01, "a"), tmp_path)
    try:
        for _ in range(2):
            status = Path(f"/proc/{process._id}/status").read_text()
            assert re.search(r"^State:\tT", status, re.MULTILINE), status
            process.sample()
    finally:
        process.close()
    assert not Path(f"/proc/{process._id}").exists()


def test_a_side_that_ends_is_named_with_what_it_said(tmp_path):
    bad = Row("nothing", {"engine": Side("commands", {"command": ["/none"], "makes": "a", "count": 1})}, (), 1)
    with pytest.raises(RowError, match=r"engine ended with status 1: FileNotFoundError.*/none"):
        harness.measure(bad, tmp_path)
    with pytest.raises(RowError, match=r"engine ended with status 1: ModuleNotFoundError.*no_task"):
        harness.measure(Row("nothing", {"engine": Side("no_task")}, (), 1), tmp_path)


def test_the_record_holds_every_sample_and_keeps_other_rows(tmp_path, monkeypatch, capsys):
    out = tmp_path / "runs" / "bench.json"
    monkeypatch.setattr(bench, "ROWS", {"one": tiny(), "two": tiny()})
    assert bench.main(["one", "--out", str(out)]) == 0
    first = json.loads(out.read_text())["rows"]["one"]
    assert bench.main(["two", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert list(rows) == ["one", "two"] and rows["one"] == first
    for row in rows.values():
        assert row["date"].endswith("UTC") and 0 <= row["others"] <= 1 and len(row["rounds"]) == 2
        assert row["machine"]["cores"] >= 1 and row["machine"]["cpu"]
        assert row["versions"]["torch"] == metadata.version("torch")  # torch.__version__ may also name the build
        assert re.fullmatch("[0-9a-f]{40}", row["commit"] or "0" * 40) and row["changed_files"] in (True, False)
        ratio, alone = row["goals"]
        assert ratio["low"] <= ratio["value"] <= ratio["high"] < 0.9 and ratio["met"] and alone["met"]
        assert set(row["peaks"]) == {"engine", "other"}
    said = capsys.readouterr().out
    assert "engine <= 0.9 of other's time" in said and "met" in said and "2 rounds" not in said


def test_an_unknown_row_is_refused_naming_the_rows(capsys):
    with pytest.raises(SystemExit) as status:
        bench.main(["alexnet", "no_such_row"])
    assert status.value.code == 2
    said = capsys.readouterr().err
    assert "no row is named no_such_row" in said and all(name in said for name in ROWS)


def test_what_needs_the_reference_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFERENCE", str(tmp_path))
    assert bench.main(["lenet", "--out", str(tmp_path / "out.json")]) == 0
    assert "lenet" in (said := capsys.readouterr().out) and "run `make reference` first" in said
    assert not (tmp_path / "out.json").exists()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "caffe-reference").touch()
    said = harness.left_out(ROWS["lenet"])
    assert "netlib's BLAS alone" in said and "run `make reference` again" in said


def test_memory_that_is_not_there_leaves_a_row_out():
    assert re.search(r"takes 1e\+06 GB of memory, and [\d.]+ GB are free", harness.left_out(tiny(memory=1e6)))
    assert harness.left_out(tiny()) is None


def test_a_program_that_is_not_there_leaves_a_row_out():
    assert harness.left_out(tiny(program="no_such_program")) == (
        "there is no no_such_program on PATH: `apt-get install no_such_program`"
    )
    assert harness.left_out(tiny(program="sh")) is None


def test_the_list_the_readme_and_the_makefile_know_the_rows(capsys):
    assert bench.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()] == list(ROWS)
    lines = (harness.HERE / "README.md").read_text().splitlines()
    named = [name for line in lines if line.startswith("| `") for name in re.findall(r"`([a-z0-9-]+)`", line[:70])]
    assert set(ROWS) <= set(named)
    makefile = (harness.REPOSITORY / "Makefile").read_text()
    for text in (makefile, "\n".join(lines)):
        for example in re.findall(r'ROWS="([^"$]+)"', text):
            assert set(example.split()) <= set(ROWS)
    assert "tests/bench/bench.py $(call given,,ROWS)" in makefile


def test_the_rows_are_sound_and_end_within_half_an_hour():
    for name, row in ROWS.items():
        assert row.goals, name
        for goal in row.goals:
            assert {goal.of, *goal.others} <= set(row.sides), name
        for side in row.sides.values():
            assert (harness.HERE / "sides" / f"{side.task}.py").is_file(), name
    assert sum(row.seconds for row in ROWS.values()) <= 1500  # what is left is for last rounds


# -- the sides compute the same


@pytest.mark.parametrize(
    ("name", "kernels"), [pytest.param("alexnet", False, marks=pytest.mark.slow), ("caffenet", True)]
)
def test_plain_pytorch_computes_what_the_net_does(name, kernels):
    net = caffe.Net(batch_nets.message(name, 1), caffe.TEST)
    batch_nets.fill(net)
    plain = torch_training.Net(name, kernels).eval()
    multipliers = {}
    for layer, blobs in net.params.items():
        for blob, kind in zip(blobs, ("weight", "bias"), strict=True):
            blob.data[...] = drawn_values(blob.data.shape)
            getattr(getattr(plain, layer), kind).data.copy_(torch.tensor(blob.data))
            multipliers[layer, kind] = len(multipliers)
    net.forward()
    with torch.no_grad():
        scores = plain(torch.tensor(net.blobs["data"].data)).numpy()
    expected = net.blobs["score"].data
    assert np.abs(scores - expected).max() < 1e-4 * np.abs(expected).max()
    groups = torch_training.optimizer(plain, 1.0).param_groups
    names = dict(zip((p for p in plain.parameters()), (n for n, _ in plain.named_parameters()), strict=True))
    for group in groups:
        index = multipliers[tuple(names[group["params"][0]].split("."))]
        decay = net.params_decay[index]
        assert group["lr"] == (1.0 if net.params_lr[index] is None else net.params_lr[index])
        assert group["weight_decay"] == torch_training.DECAY * (1.0 if decay is None else decay)


def test_a_prototxt_as_plain_modules_computes_what_the_net_does():
    message = batch_nets.message("googlenet", 1)
    net = caffe.Net(message, caffe.TEST)
    batch_nets.fill(net)
    plain = torch_nets.Net(message).eval()
    with torch.no_grad():
        images, labels = torch.tensor(net.blobs["data"].data), torch.tensor(net.blobs["label"].data).long()
        plain(images, labels)  # sizes of its inner products
        for layer, blobs in net.params.items():
            for blob, kind in zip(blobs, ("weight", "bias"), strict=True):
                blob.data[...] = drawn_values(blob.data.shape)
                getattr(plain.parts[layer], kind).copy_(torch.tensor(blob.data))
        net.forward()
        weights = {layer.top[0]: (list(layer.loss_weight) or [1])[0] for layer in message.layer if "Loss" in layer.type}
        expected = sum(weight * float(net.blobs[top].data) for top, weight in weights.items())
        assert len(weights) == 3 and plain(images, labels).item() == pytest.approx(expected, rel=1e-4)


def test_the_limit_counts_the_products_of_an_iteration():
    message = batch_nets.message("lenet", 2)
    forward = {"conv1": 20 * 25 * 24 * 24, "conv2": 50 * 20 * 25 * 8 * 8, "ip1": 800 * 500, "ip2": 500 * 10}
    expected = 2 * (3 * sum(forward.values()) - forward["conv1"])  # the picture needs no gradient
    assert limit.multiplications(message) == expected
    assert limit.multiplications(limit.message("lenet", 2, forward=True), forward=True) == 2 * sum(forward.values())
    assert limit.multiplications(limit.message("demo", 64, forward=False)) > 0
    goal = Goal(1.0, to=("BVLC", "other"))
    rounds = [{**each, "other": {"seconds": 4.0}} for each in ROUNDS]
    assert goal.values(rounds) == [0.5, 0.75, 2.5] and goal.result(rounds)["to"] == "BVLC or other"


def drawn_values(shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.default_rng(len(shape))
    scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return scale * random.standard_normal(shape, np.float32)


def test_a_net_has_its_batch_and_loses_nothing_but_its_losses():
    train, deploy = batch_nets.message("googlenet", 3), batch_nets.message("googlenet", 3, deploy=True)
    assert sum(layer.type == "SoftmaxWithLoss" for layer in train.layer) == 3
    assert [layer.top[0] for layer in deploy.layer if layer.type == "Input"] == ["data"]
    assert all(layer.input_param.shape[0].dim[0] == 3 for layer in train.layer if layer.type == "Input")
    assert {layer.dropout_param.dropout_ratio for layer in train.layer if layer.type == "Dropout"} != {0.0}


def test_the_authors_computation_agrees_with_the_scorer():
    from dhn.scoring import retrieval

    (codes, labels), (database, database_labels) = scoring.draw(20, 12, 5, 1), scoring.draw(400, 12, 5, 2)
    real = [each.astype(np.float64) for each in (codes, database)]
    found = scoring.authors_map(real[0], labels.astype(int), real[1], database_labels.astype(int), 50)
    assert found == pytest.approx(retrieval.score(codes, labels, database, database_labels, "dhn-caffe", 50)["map"])
    few = {key: options for key, options in ROWS["score"].sides["engine"].options.items() if key != "items"}
    small = {**few, "folder": "", "items": 6000, "queries": 30}
    ours, theirs = scoring.setup(**small)(), scoring.setup(**small, authors=True)()
    assert ours["low"] < theirs["map"] < ours["high"] and ours["grown"] >= 0


def test_the_data_layers_give_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(prepared, "PHOTOS", 12)
    monkeypatch.setattr(prepared, "DISTINCT", 3)
    prepared.photos_lmdb(tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "photos").iterdir()]
    assert len(sizes) == 12 and 50_000 < np.mean(sizes) < 200_000
    import image_records

    monkeypatch.setattr(image_records, "_CACHE_BYTES", image_records._CACHE_BYTES)
    for layer in data_layers.LAYERS:
        net = data_layers.open_net(str(tmp_path), layer, 4)
        net.forward()
        if layer != "there":
            assert 20 < net.blobs["data"].data.std() < 100
            expected = (4, 21) if layer == "multilabel" else (4,)
            assert net.blobs["label"].data.shape == expected
    starved = data_layers.setup(str(tmp_path), "data", 4, 2, paused=True)()["seconds"]
    assert starved >= 2 * float((tmp_path / "seconds_per_batch").read_text())


@pytest.mark.slow
def test_the_weights_file_is_whole(tmp_path, monkeypatch):
    prepared.weights(tmp_path)
    path = tmp_path / "weights.caffemodel"
    assert path.stat().st_size > 232e6
    net = caffe_pb2.NetParameter.FromString(path.read_bytes())
    assert [layer.name for layer in net.layers][-1] == "fc8" and not net.layer
    path.unlink()


def test_amounts_are_readable():
    assert (
        record.amount(0.0123, "seconds") == "12.3 ms"
        and record.amount(0.9996, "seconds") == "999.6 ms"
        and record.amount(2.5, "seconds") == "2.5 s"
    )
    assert record.amount(5e8, "peak") == "0.50 GB" and record.amount(0.002, "seconds", "images") == "500 images/s"
