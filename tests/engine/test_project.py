"""The steps of engine/README.md on a project of one's own (project_files.py), followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import project_files
import pytest
from caffe.cli import parse_log
from caffe.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = "## Your own Caffe project"
# Steps that need no process of their own, which would import torch once more, and the functions of their commands.
HERE = {"parse_log train.log .": parse_log.main, "caffe shim .": main}
PICTURES = ("pictures/18.png", "pictures/19.png", "pictures/20.png")  # of the test list: blue, green, red


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The project's folder after the page's steps, and what each wrote: {command: (stdout, stderr)}."""
    folder = tmp_path_factory.mktemp("project")
    project_files.write(str(folder))
    said = {}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    for step in steps():
        if step in HERE:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                assert HERE[step](step.split()[1:]) == 0
            continue
        environment = dict(os.environ, PATH=path, OMP_NUM_THREADS="1")
        done = subprocess.run(step, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{step}\n{done.stderr[-2000:]}"
        said[step.split(" -")[0].split(" pictures")[0]] = (done.stdout, done.stderr)
    return folder, said


def steps() -> list[str]:
    """The commands of the page's block that begins with `python train.py`."""
    page = (REPOSITORY / "engine" / "README.md").read_text().split(PAGE)[1].split("\n## ")[0]
    blocks = re.findall(r"(?:^    .+\n)+", page, re.MULTILINE)
    lines = next(block for block in blocks if "python train.py" in block).splitlines()
    return [re.split(r"\s{2,}# ", line.strip())[0] for line in lines]


def test_the_steps_that_are_made_here_are_on_the_page():
    assert set(HERE) < set(steps())


def test_the_solver_loop_learns(project):
    _, said = project
    assert re.fullmatch(r"loss 0\.\d+ to 0\.0\d+, accuracy 1\.00\n", said["python train.py"][0])


def test_the_classifier_tells_the_colours_apart(project):
    _, said = project
    lines = [line.split() for line in said["python predict.py"][0].splitlines()]
    expected = [(path, str(label)) for label, path in enumerate(PICTURES) for _ in ("centre", "oversampled")]
    assert [(path, label) for path, label, _ in lines] == expected


def test_the_command_trains_and_snapshots(project):
    folder, _ = project
    assert "Optimization Done." in (folder / "train.log").read_text()
    assert (folder / "snapshots" / "pictures_iter_60.caffemodel").is_file()
    assert (folder / "snapshots" / "pictures_iter_60.solverstate").is_file()


def test_the_log_is_a_table(project):
    folder, _ = project
    lines = (folder / "train.log.train").read_text().splitlines()
    assert lines[0].startswith("NumIters,Seconds,LearningRate")
    assert [line.split(",")[0] for line in lines[1:]] == ["0.0", "10.0", "20.0", "30.0", "40.0", "50.0"]


def test_hard_coded_paths_are_there(project):
    _, said = project
    found = re.search(r"accuracy = ([\d.]+)\n", said["PYTHONPATH=layers ./build/tools/caffe test"][1])
    assert float(found[1]) == 1
