"""`caffe shim` and `caffe doctor`; and that each command is installed where it should be."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import caffe
import numpy as np
from caffe.cli import doctor, shim
from caffe.cli.commands import COMMANDS, SCRIPTS
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
    assert dict(re.findall(r'^(\w+) = "(.*?)"', scripts, re.MULTILINE)) == ours | {"dhn": "dhn.__main__:main"}
    for target in (*ours.values(), *SCRIPTS.values()):
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_an_old_repository_runs_as_it_stands(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["shim", "."]) == 0
    assert "build/tools/caffe.bin" in capfd.readouterr().out
    assert main(["shim", "."]) == 0  # written anew
    for place in (*SCRIPTS, *(place for _, places in COMMANDS.values() for place in places)):
        assert os.access(place, os.X_OK)
        assert os.access(f"{place}.bin", os.X_OK) == place.startswith("build/")
    Path("caffe").mkdir()  # the folder that an old repository keeps its own files in
    Path("solver.prototxt").write_text('net: "n" solver_type: ADAM')
    Path("old.py").write_text(OLD_SCRIPT)
    script = f"./build/tools/upgrade_solver_proto_text.bin solver.prototxt new.prototxt && {sys.executable} old.py"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "engine")}
    done = subprocess.run(["sh", "-ec", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    place, whole = done.stdout.split()
    assert os.path.normpath(place) == f"{tmp_path}/python/caffe/__init__.py" and whole == "True"
    assert 'type: "Adam"' in Path("new.prototxt").read_text()


# what BVLC's tutorials call and load, as they write it
TUTORIALS = """
build/tools/caffe build/tools/caffe.bin build/tools/compute_image_mean.bin build/tools/extract_features.bin
build/examples/mnist/convert_mnist_data.bin build/examples/cifar10/convert_cifar_data.bin
build/examples/siamese/convert_mnist_siamese_data.bin build/examples/cpp_classification/classification.bin
tools/extra/parse_log.sh tools/extra/parse_log.py tools/extra/extract_seconds.py
tools/extra/plot_training_log.py.example python/classify.py python/detect.py python/draw_net.py
"""


def test_what_the_tutorials_call_is_there(tmp_path, capsys):
    mean = np.float64([104, 117, 123]).reshape(3, 1, 1) * np.ones((1, 2, 2))
    (tmp_path / "mean.binaryproto").write_bytes(caffe.io.array_to_blobproto(mean[None]).SerializeToString())
    root = tmp_path / "caffe"
    (root / "python").mkdir(parents=True)
    (root / "python" / "caffe").symlink_to(doctor.PACKAGE.resolve())  # as earlier versions left it
    assert main(["shim", str(root)]) == 0
    missing = root / "python" / "caffe" / "imagenet" / "ilsvrc_2012_mean.npy"
    said = capsys.readouterr().out
    assert f"not written: {missing} is not shipped: the toolkit's `make weights` writes" in said
    assert said.count("not written") == 1
    assert all(os.access(root / path, os.X_OK) for path in TUTORIALS.split())
    for _ in range(2):
        assert main(["shim", str(root), str(tmp_path / "mean.binaryproto")]) == 0
        assert "not written" not in capsys.readouterr().out
        np.testing.assert_array_equal(np.load(missing), mean)
    np.save(tmp_path / "other.npy", mean + 1)  # another mean does not replace the one that is there
    assert main(["shim", str(root), str(tmp_path / "other.npy")]) == 0
    assert f"not written: {missing} is there already" in capsys.readouterr().out
    np.testing.assert_array_equal(np.load(missing), mean)


def test_the_shim_in_bvlcs_checkout(tmp_path, capsys):
    """Names of its own are left and listed, with what to do; what is free is made, and the status is 0."""
    names = ["python/caffe/__init__.py", "python/caffe/pycaffe.py", "python/classify.py", "tools/extra/parse_log.sh"]
    for name in [*names, "python/caffe/imagenet/ilsvrc_2012_mean.npy", "build"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs")
    (tmp_path / "tools" / "extra" / "extract_seconds.py").symlink_to("nowhere")
    package = tmp_path / "python" / "caffe"
    assert main(["shim", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for name, reason in {
        "python/caffe/__init__.py": f"rename the package: mv {package} {package}.source && caffe shim {tmp_path} "
        f"{package}.source/imagenet/ilsvrc_2012_mean.npy",
        "python/classify.py": "is there already",
        "tools/extra/parse_log.sh": "is there already",
        "tools/extra/extract_seconds.py": "is there already",
        "build/tools/caffe": f"{tmp_path}/build is there already and is no folder",
    }.items():
        (line,) = re.findall(rf"not written: {tmp_path}/{re.escape(name)} (.*)", said)
        assert reason in line
    assert "is not shipped" not in said
    assert {(tmp_path / name).read_text() for name in names} == {"theirs"}
    (tmp_path / "build").unlink()
    package.rename(f"{package}.source")
    assert main(["shim", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for name in ("build/tools/caffe", "tools/extra/parse_log.py", "python/detect.py", "python/caffe/__init__.py"):
        assert f"\n{tmp_path}/{name}\n" in f"\n{said}"
    assert (package / "__init__.py").read_text().startswith(shim.MARK)


def test_the_shim_refuses(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    np.save(tmp_path / "grey.npy", np.ones((1, 2, 2)))
    for words, message in {
        "": "caffe shim DIR [MEAN]: expected a folder and perhaps a mean, found 0 words",
        f"{tmp_path}/file": "expected a folder, found a file",
        f"{tmp_path}/x {tmp_path}/nowhere.npy": "expected a mean image, .npy or .binaryproto, at",
        f"{tmp_path}/x {tmp_path}/grey.npy": "expected the mean image of ImageNet, (3, H, W), found (1, 2, 2)",
    }.items():
        assert main(["shim", *words.split()]) == 1
        assert message in capfd.readouterr().err
    assert not (tmp_path / "x").exists()


def test_doctor(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(REPOSITORY / "engine"), *sys.path[1:]])
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    here = f"-> {doctor.PACKAGE}: this engine"
    for words in (here, "torch", "kernels.c", "CUDA", "plyvel", "LevelDB databases", "draw_net's png"):
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
        shim.write(tmp_path / "shim").written[-1].parent: "what `caffe shim` wrote",
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
