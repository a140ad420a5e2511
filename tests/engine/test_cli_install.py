"""`caffe shim` and `caffe doctor`; and that each command is installed where it should be."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from caffe.cli import doctor, shim
from caffe.cli.commands import COMMANDS
from caffe.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
OLD_SCRIPT = """
import sys
caffe_root = './'
sys.path.insert(0, caffe_root + 'python')
import caffe
from caffe.proto import caffe_pb2
print(caffe.__file__, len(caffe.layer_type_list()) > 60)
"""


def test_the_commands_are_those_of_pyproject():
    text = (REPOSITORY / "pyproject.toml").read_text()
    scripts = text.split("[project.scripts]\n")[1].split("\n\n")[0]
    ours = {name: target for name, (target, _) in COMMANDS.items()}
    assert dict(line.replace('"', "").split(" = ") for line in scripts.splitlines()) == ours
    for target in ours.values():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_an_old_repository_runs_as_it_stands(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["shim", "."]) == 0
    assert "build/tools/caffe.bin" in capfd.readouterr().out
    assert main(["shim", "."]) == 0  # written anew
    for name in COMMANDS:
        (place,) = COMMANDS[name][1]
        assert os.access(place, os.X_OK)
        assert os.access(f"{place}.bin", os.X_OK) == place.startswith("build/")
    Path("caffe").mkdir()  # the folder that an old repository keeps its own files in
    Path("solver.prototxt").write_text('net: "n" solver_type: ADAM')
    Path("old.py").write_text(OLD_SCRIPT)
    script = f"./build/tools/upgrade_solver_proto_text.bin solver.prototxt new.prototxt && {sys.executable} old.py"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "engine")}
    done = subprocess.run(["sh", "-ec", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/./python/caffe/__init__.py True\n"
    assert 'type: "Adam"' in Path("new.prototxt").read_text()


def test_the_shim_overwrites_nothing_of_others(tmp_path, monkeypatch, capfd):
    (tmp_path / "python" / "caffe").mkdir(parents=True)
    (tmp_path / "build" / "tools").mkdir(parents=True)
    (tmp_path / "build" / "tools" / "caffe").write_text("another program")
    with pytest.raises(FileExistsError, match=r"build/tools/caffe, .*python/caffe\. Move them away"):
        shim.write(tmp_path)
    assert [path.name for path in (tmp_path / "build" / "tools").iterdir()] == ["caffe"]
    assert main(["shim"]) == 1
    assert "caffe shim DIR: expected one folder, found 0" in capfd.readouterr().err


def test_doctor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(REPOSITORY / "engine"), *sys.path[1:]])
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    here = f"-> {doctor.PACKAGE}: this engine"
    for words in (here, "torch", "kernels.c", "CUDA", "plyvel", "LevelDB databases", "graphviz"):
        assert words in said
    (tmp_path / "caffe.py").write_text("")  # a script of that name in the working directory
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "-> " + str(tmp_path / "caffe.py") + ": a module that is no Caffe" in said
    assert "comes later or not at all" in said


def make(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("")
    return folder


def test_what_a_caffe_on_the_path_is(tmp_path):
    built = make(tmp_path / "built" / "caffe", "__init__.py", "pycaffe.py", "_caffe.cpython-39-x86_64-linux-gnu.so")
    half = make(tmp_path / "half" / "caffe", "__init__.py", "pycaffe.py", "_caffe.cpp")
    empty = make(tmp_path / "empty" / "caffe", "__init__.py")
    space = make(tmp_path / "space" / "caffe", "notes.txt")
    other = make(tmp_path / "other" / "caffe", "__init__.py", "latte.py")
    for folder, words in {
        built: "BVLC's pycaffe or a fork's, built (_caffe.cpython-39-x86_64-linux-gnu.so)",
        half: "half a source tree: Caffe's python folder whose _caffe was never built",
        empty: "an empty package",
        space: "a folder without __init__.py",
        other: "another package of that name",
        doctor.PACKAGE: "this engine",
    }.items():
        assert doctor.describe(folder).startswith(words)
    path = [str(folder.parent) for folder in (space, empty, empty, half)]
    assert list(doctor.candidates(path)) == [empty, half, space]


def test_the_placeholder_of_pypi_is_named(tmp_path, monkeypatch, capsys):
    info = make(tmp_path / "caffe-0.1.0.dist-info", "RECORD")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: caffe\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("caffe-0.1.0.dist-info/METADATA,,\n")
    assert not doctor._is_placeholder()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert doctor._is_placeholder()
    doctor.report()
    assert "The package `caffe` 0.1.0 of PyPI" in capsys.readouterr().out


def test_a_missing_package_is_told_with_its_purpose(monkeypatch):
    monkeypatch.setitem(doctor.NEEDED, "no_such_module", ("no-such-package", "this test"))
    lines, whole = doctor._packages(doctor.NEEDED)
    assert not whole
    assert "missing: pip install no-such-package" in lines[-1] and "this test" in lines[-1]
