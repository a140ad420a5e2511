"""Scoring a run: codes extracted once, every protocol, metrics.json, the table."""

from __future__ import annotations

import json
import os
import runpy
import stat
import subprocess
import sys

import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.codes import files as codes
from dhn.codes import of_run
from dhn.datasets import splits
from dhn.experiments import scored_run
from dhn.files import sha256, write_json
from dhn.pages import report
from dhn.runs.folder import Run, RunError

# In the place of extract_codes.py: random codes, the query's for query_lmdb; counts its calls.
EXTRACT = """
import sys
import numpy as np
from dhn.codes import files as codes
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
open("calls", "a").write(options["--source"] + "\\n")
count = 20 if "query" in options["--source"] else 60
labels = np.eye(4, dtype=np.uint8)[np.arange(count) % 4]
noise = np.random.RandomState(count).normal(0, 0.5, (count, 8))
codes.save(options["--out"], np.tanh(np.repeat(labels * 2.0 - 1, 2, axis=1) + noise), labels)
"""

PROCESS = subprocess.run


def here(command: list[str], cwd, check: bool, preexec_fn=None) -> subprocess.CompletedProcess:
    """Run a Python script in this process, which has imported numpy already, as PROCESS does it in its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setattr(sys, "argv", command[1:])
        try:
            runpy.run_path(command[1], run_name="__main__")
        except SystemExit as ended:
            return subprocess.CompletedProcess(command, ended.code)
    return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def run(tmp_path, monkeypatch, make_lists, undrawn) -> Run:
    """A trained run of 8 bits in a temporary folder."""
    run = Run("fashion_mnist", "dhn", 8, tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "solver.prototxt").write_text(
        'max_iter: 5 random_seed: 3 snapshot_prefix: "runs/fashion_mnist-dhn-8/dhn"'
    )
    (run.folder / "train_val.prototxt").write_text('name: "net"')
    for side, count in (("train", 40), ("query", 20), ("database", 60)):
        (run.data / f"{side}_lmdb").mkdir(parents=True)
        write_json(run.data / f"{side}_lmdb" / "source.json", {"records": count})
    for name, digest in make_lists(run.data).items():
        built = run.data / f"{name[:-4]}_lmdb" / "source.json"
        write_json(built, {**json.loads(built.read_text()), "recipe": {"inputs": {"list": digest}}})
    run.weights().write_bytes(caffe_pb2.NetParameter(name="net").SerializeToString())
    facts = {"recipe": run.recipe(), "weights_sha256": sha256(run.weights()), "iterations": 5}
    write_json(run.folder / "training.json", facts | {"resumed_at": [2], "seconds_per_step": 0.25})
    (tmp_path / "extract.py").write_text(EXTRACT)
    monkeypatch.setattr(of_run, "EXTRACT", [sys.executable, str(tmp_path / "extract.py")])
    monkeypatch.setattr(subprocess, "run", here)
    # only page_of writes a page
    monkeypatch.setattr(report, "write", lambda run: (run.folder / "report.html").write_text("undrawn"))
    return run


WRITE = report.write


def page_of(run: Run) -> str:
    return " ".join(WRITE(run).read_text().split())


def test_scores_and_writes_metrics(run, capsys, monkeypatch):
    monkeypatch.setattr(subprocess, "run", PROCESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    facts = scored_run.score(run)
    assert facts == json.loads((run.folder / "metrics.json").read_text())
    assert facts["protocol"] == "standard" and facts["weights_sha256"] == sha256(run.weights())
    assert (facts["queries"], facts["database"], facts["bits"]) == (20, 60, 8)
    assert (facts["dataset"], facts["variant"], facts["seed"]) == ("fashion_mnist", "dhn", 3)
    assert (facts["seconds_per_step"], facts["resumed_at"], facts["iterations"]) == (0.25, [2], 5)
    assert list(facts["protocols"]) == scored_run.protocols("dhn")
    assert facts["map_low"] <= facts["map_expected"] <= facts["map_high"]
    text = capsys.readouterr().out
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for word in (*scored_run.protocols("dhn"), f"{facts['map']:.4f}", f"{facts['map_low']:.4f}", "0.250", "P@r2"):
        assert word in text
    assert text.rstrip().endswith("run folder: runs/fashion_mnist-dhn-8/")


def test_the_report_is_written_once_unless_older_than_the_scores(run, capsys):
    scored_run.score(run)
    page = run.folder / "report.html"
    stamp = page.stat().st_mtime_ns
    assert "wrote runs/fashion_mnist-dhn-8/report.html" in capsys.readouterr().out
    scored_run.score(run)
    assert "report.html: already there" in capsys.readouterr().out and page.stat().st_mtime_ns == stamp
    os.utime(page, (1, 1))
    scored_run.score(run)
    assert page.stat().st_mtime_ns >= stamp


def test_codes_are_extracted_once_unless_older_or_damaged(run, capsys):
    calls = run.root / "calls"
    scored_run.score(run)
    assert calls.read_text().split() == ["data/fashion_mnist/query_lmdb", "data/fashion_mnist/database_lmdb"]
    scored_run.score(run)
    assert "query.npz: already there and complete" in capsys.readouterr().out
    assert len(calls.read_text().split()) == 2

    raw = (run.folder / "query.npz").read_bytes()
    (run.folder / "query.npz").write_bytes(raw[: len(raw) // 2])  # cut short
    of_run.extract(run)
    assert calls.read_text().split()[2:] == ["data/fashion_mnist/query_lmdb"]

    codes.save(run.folder / "query.npz", np.ones((19, 8)), np.ones((19, 4)))  # of other images
    of_run.extract(run)
    assert calls.read_text().split()[3:] == ["data/fashion_mnist/query_lmdb"]

    later = (run.folder / "query.npz").stat()[stat.ST_MTIME] + 10
    os.utime(run.weights(), (later, later))  # trained again
    of_run.extract(run)
    assert len(calls.read_text().split()) == 6


def test_metrics_are_written_once_unless_older_or_of_other_weights(run, capsys):
    out = run.folder / "metrics.json"
    facts = scored_run.score(run)
    stamp = out.stat().st_mtime_ns
    capsys.readouterr()
    assert scored_run.score(run) == facts and out.stat().st_mtime_ns == stamp
    text = capsys.readouterr().out
    assert "metrics.json: already there and complete" in text and f"{facts['map']:.4f}" in text
    for other in ({"weights_sha256": "0"}, {"protocols": {}}, {"split": {}}):
        write_json(out, facts | other)
        assert scored_run.saved_metrics(run, facts["split"]) is None
    out.write_text("{")
    assert scored_run.score(run)["map"] == facts["map"]
    os.utime(out, (1, 1))
    assert scored_run.saved_metrics(run, facts["split"]) is None


def test_settings_and_edited_files_stand_beside_the_numbers(run, capsys):
    assert scored_run.score(run)["edited"] == []
    record = json.loads((run.folder / "training.json").read_text())
    write_json(run.folder / "training.json", {**record, "settings": {"base_lr": 0.1, "momentum": 0.8}})
    written = run.folder / "deploy.prototxt"
    written.write_text("name: 'mine'")
    write_json(run.folder / "written.json", {"deploy.prototxt": "of another text", "gone.prototxt": ""})
    capsys.readouterr()
    facts = scored_run.score(run)  # an edit makes the metrics stale
    assert facts["edited"] == ["deploy.prototxt"] and facts["settings"] == {"base_lr": 0.1, "momentum": 0.8}
    text = " ".join(capsys.readouterr().out.split())
    assert 'set for this run: LR=0.1 SET="momentum=0.8"' in text and "edited by hand: deploy.prototxt" in text
    page = page_of(run)
    assert "<li>edited by hand: deploy.prototxt.</li>" in page
    assert "<dt>set for this run</dt><dd><code>LR=0.1 SET=&#34;momentum=0.8&#34;</code></dd>" in page
    assert scored_run.score(run) == facts and "metrics.json: already there and complete" in capsys.readouterr().out


def test_dhn_b_is_scored_without_binarization():
    assert scored_run.protocols("dhn_b") and set(scored_run.protocols("dhn_b")) < set(scored_run.protocols("dhn"))
    assert all(scored_run.PROTOCOLS[name].real for name in scored_run.protocols("dhn_b"))


def test_the_split_and_its_r_stand_in_metrics(run):
    record = json.loads((run.data / "split.json").read_text())
    write_json(run.data / "split.json", record | {"split": "mine", "R": 7, "missing": 3})
    scored_run.score(run)
    facts = json.loads((run.folder / "metrics.json").read_text())
    assert facts["split"]["sha256"]["query"] == sha256(run.data / "query.txt")
    assert (facts["split"]["split"], facts["split"]["R"], facts["split"]["missing"]) == ("mine", 7, 3)
    assert facts["split"]["counts"] == {"query": 1, "train": 1, "database": 1}
    assert list(facts["protocols"])[-1] == "hash-caffe@7" and facts["protocols"]["hash-caffe@7"]["R"] == 7
    assert facts["net"] == "small_alexnet"


def test_a_damaged_number_of_the_split_is_named_before_anything_is_written(run):
    record = json.loads((run.data / "split.json").read_text())
    write_json(run.data / "split.json", record | {"missing": 1 << 64})
    with pytest.raises(ValueError, match=r"split\.json: is damaged: 'missing' cannot be 18446744073709551616"):
        scored_run.score(run)
    assert not (run.folder / "metrics.json").exists()


def test_a_query_image_in_the_database_stops_the_scoring(run):
    with open(run.data / "database.txt", "a") as stream:
        stream.write((run.data / "query.txt").read_text())
    record = json.loads((run.data / "split.json").read_text())
    record["sha256"]["database.txt"] = sha256(run.data / "database.txt")
    write_json(run.data / "split.json", record)
    facts = json.loads((run.data / "database_lmdb" / "source.json").read_text())
    facts["recipe"]["inputs"]["list"] = record["sha256"]["database.txt"]
    write_json(run.data / "database_lmdb" / "source.json", facts)
    with pytest.raises(splits.SplitError, match=r"^0 stands in .*query\.txt and in .*database\.txt"):
        scored_run.score(run)


def test_an_untrained_run_is_refused(run):
    run.weights().write_bytes(b"other")
    with pytest.raises(RunError, match="no finished training of this recipe; run: make train DATASET=fashion_mnist"):
        scored_run.score(run)
    with pytest.raises(RunError, match=r"holds no training \(no solver.prototxt\)"):
        scored_run.score(Run("fashion_mnist", "dhn", 16, run.root))


def test_missing_images_and_a_failed_extraction_are_named(run):
    built = run.data / "query_lmdb" / "source.json"
    facts = json.loads(built.read_text())
    built.unlink()
    with pytest.raises(RunError, match="query_lmdb is missing; run: make data"):
        scored_run.score(run)
    write_json(built, facts)
    (run.root / "extract.py").write_text("raise SystemExit(2)")
    with pytest.raises(RunError, match="cannot extract the codes of data/fashion_mnist/query_lmdb"):
        scored_run.score(run)


def collapse(run, value: float = 0.9) -> None:
    """All codes of the run are the same: those of the database all of `value`, the queries' of both signs."""
    for side, count in (("query", 20), ("database", 60)):
        values = np.full((count, 8), value, np.float32)
        values[: count // 2, 0] *= -1 if side == "query" else 1
        labels = np.eye(4, dtype=np.uint8)[np.minimum(np.arange(count) * 5 // count, 3)]
        codes.save(run.folder / f"{side}.npz", values, labels)


def test_collapsed_codes_are_said_and_the_headline_is_the_expected_value(run, capsys):
    collapse(run)
    facts = scored_run.score(run)
    assert facts["codes"]["database"]["distinct"] == 1 and facts["codes"]["query"]["distinct"] == 2
    assert facts["map_low"] + 0.1 < facts["map_expected"] < facts["map_high"] - 0.3
    assert any("all 60 database items have the same code" in note for note in facts["notes"])
    text = " ".join(capsys.readouterr().out.split())
    assert "collapsed codes: all 60 database items have the same code" in text
    assert f"quote its expected value over all tie orders, {facts['map_expected']:.4f}" in text
    assert "Distinct codes: 2 of the query, 1 of the database." in text
    page = page_of(run)
    assert f"<dt>MAP, standard, expected over ties</dt><dd>{facts['map_expected']:.3f}</dd>" in page
    assert f"<dd>{facts['map_low']:.3f} to {facts['map_high']:.3f}; {facts['map']:.3f} in database order</dd>" in page
    assert '<ul class="warnings">' in page and "<li>collapsed codes: all 60 database items have the same code" in page
    assert "<dt>Distinct codes</dt><dd>1</dd> <dd>of 60 database images; 2 of 20 queries</dd>" in page


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_dead_or_saturated_net_is_scored_with_words(run, capsys, value):
    """Codes that are all 0, or all 1: of our own net, so signs, though none is negative."""
    collapse(run, value)
    facts = scored_run.score(run)
    words = ", 0 in every bit" if value == 0 else ""
    note = f"collapsed codes: all 60 database items have the same code{words}, so they all tie"
    assert note in " ".join(capsys.readouterr().out.split())
    assert facts["codes"]["database"]["zeros"] == (480 if value == 0 else 0)


def test_signs_that_collapsed_do_not_count_where_real_values_rank(run):
    for side, count in (("query", 20), ("database", 60)):
        labels = np.eye(4, dtype=np.uint8)[np.arange(count) % 4]
        codes.save(run.folder / f"{side}.npz", np.random.RandomState(count).rand(count, 8) + 0.1, labels)
    scores = scored_run.score_files(*(str(run.folder / f"{side}.npz") for side in of_run.SIDES), ["dhn-caffe"],
                                   codes_are="sign")  # fmt: skip
    assert scores[0]["codes"]["database"]["distinct"] == 1 and scores[0]["notes"] == []


def test_codes_that_tell_the_classes_apart_are_not_called_collapsed(run, capsys):
    facts = scored_run.score(run)
    page = page_of(run)
    assert not any("collapsed" in note for note in facts["notes"]) and "ollapsed" not in page
    assert "collapsed" not in capsys.readouterr().out


def test_metrics_of_an_older_version_are_made_again(run):
    facts = scored_run.score(run)
    for older in ({key: facts[key] for key in facts if key not in ("read_as", "notes")}, [facts]):
        write_json(run.folder / "metrics.json", older)
        assert scored_run.saved_metrics(run, facts["split"]) is None
        assert scored_run.score(run) == facts


def test_images_without_labels_are_left_out_and_counted(run, capsys):
    for side, count in (("query", 20), ("database", 60)):
        labels = np.eye(4, dtype=np.int8)[np.arange(count) % 4]
        labels[::5] = -1
        codes.save(run.folder / f"{side}.npz", np.random.RandomState(count).randn(count, 8), labels)
    facts = scored_run.score(run)
    assert (facts["queries"], facts["queries_unlabelled"]) == (16, 4)
    assert (facts["database"], facts["database_unlabelled"]) == (48, 12)
    assert "Left out, their labels being unknown: 4 queries, 12 database images." in " ".join(
        capsys.readouterr().out.split()
    )
    page = page_of(run)
    assert "left out, their labels being unknown: 4 queries, 12 database images" in page


def test_a_leaking_split_and_copied_images_are_marked_in_every_output(run, capsys, monkeypatch):
    """As `make data --allow-overlap` and CIFAR-10's JPEGs make it and splits.verify reports it."""
    kept = splits.verify(run.data) | {"overlap": {"query_in_database": 7}, "form": "JPEG copies"}
    monkeypatch.setattr(splits, "verify", lambda folder: kept)
    facts = scored_run.score(run)
    assert facts["split"]["overlap"] == {"query_in_database": 7} and facts["split"]["form"] == "JPEG copies"
    words = "the images are JPEG copies, not the originals; 7 query images are also in the database set"
    assert words in " ".join(capsys.readouterr().out.split())
    assert f"<li>{words}.</li>" in page_of(run)
