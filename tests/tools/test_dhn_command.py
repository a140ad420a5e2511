"""The command `dhn`: in a checkout, and as a user without one has it, from the wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import cv2
import lmdb
import numpy as np
import pytest
from dhn import __main__, layout

ROOT = Path(__file__).resolve().parents[2]


def test_help_has_the_first_line_of_every_command(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dhn", "--help"])
    assert __main__.main() == 0
    lines = capsys.readouterr().out.splitlines()[4:]
    files = {path.stem.replace("_", "-") for path in (ROOT / "tools").glob("*.py")}
    assert [line.split()[0] for line in lines] == sorted({*files, "net"})
    summary = (ROOT / "tools" / "train.py").read_text().split("\n")[0].removeprefix('"""')
    assert f"  train            {summary}" in lines


def test_a_command_that_is_not_there_and_a_package_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dhn", "score"])
    assert __main__.main() == 2
    assert "there is no command 'score'; expected one of ablation, baselines," in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["dhn", "score-map", "--help"])
    monkeypatch.setattr(__main__, "NEEDED", (*__main__.NEEDED, "no_such_module"))
    assert __main__.main() == 1
    said = capsys.readouterr().err
    assert said == (
        "dhn score-map needs no_such_module, not installed here; run: pip install 'dhn-caffe-toolkit[tools]'\n"
    )


def test_what_is_needed_is_the_extra():
    extra = re.search(r"^tools = \[(.*?)^\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)[1]
    names = [name.replace("-", "_") for name in re.findall(r'"([a-z0-9-]+)>=', extra)]
    assert sorted(__main__.NEEDED) == sorted({"pillow": "PIL"}.get(name, name) for name in names)


def test_a_remedy_is_what_the_user_can_type(monkeypatch):
    run = {"variant": "dhn", "bits": 48, "net": None}
    assert layout.target_command("train", "cifar10", **run) == "make train DATASET=cifar10 VARIANT=dhn BITS=48"
    assert (
        layout.tool_command("score_run") == "python tools/score_run.py"
        and layout.tool_command("net") == "python prototxt/net.py"
    )
    assert (layout.option("allow-missing", 3), layout.option("allow-overlap")) == ("MISSING=3", "ALLOW_OVERLAP=1")
    assert layout.option("weights", "w.caffemodel") == "WEIGHTS=w.caffemodel"
    monkeypatch.setattr(layout, "INSTALLED", True)
    assert layout.target_command("train", "cifar10", **run) == "dhn train cifar10 --variant dhn --bits 48"
    assert layout.target_command("resume", "cifar10") == "dhn train --resume cifar10"
    assert layout.target_command("data", "cifar10") == "dhn get-data cifar10"
    assert (layout.option("allow-missing", 3), layout.option("allow-overlap")) == (
        "--allow-missing 3",
        "--allow-overlap",
    )
    assert layout.tool_command("score_run") == "dhn score-run" and layout.tool_command("net") == "dhn net"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel in an environment of its own, which takes all else from this one: its names, site-packages, and
    run(*words, code=...), which starts its Python in a folder of the user's."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    # without a C compiler: what is built here is not measured
    subprocess.run(build, cwd=ROOT, env={**os.environ, "CC": "false"}, check=True, capture_output=True)
    venv.create(folder / "venv", symlinks=True)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = archive.namelist()
    # a .pth file adds folders and leaves the .pth files in them alone: the checkout is not on this path
    (site / "others.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    (folder / "user").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str, code: str | None = None) -> subprocess.CompletedProcess:
        command = [str(folder / "venv" / "bin" / "python"), *(["-c", code] if code else ["-m", "dhn", *words])]
        return subprocess.run(
            command, cwd=folder / "user", env=environment, capture_output=True, text=True, check=False
        )

    return SimpleNamespace(names=names, site=site, run=run, user=folder / "user")


def test_the_wheel_installs_packages_alone(installed):
    top = {name.split("/")[0] for name in installed.names}
    packages = {name for name in top if not name.endswith(".dist-info")}
    assert packages == {"atomic_writes", "authors_forks", "caffe", "dhn"}
    assert not [name for name in installed.names if name.endswith((".pth", ".pyc"))]
    (metadata,) = installed.site.glob("*.dist-info")
    assert "\ndhn = dhn.__main__:main\n" in (metadata / "entry_points.txt").read_text()
    assert (installed.site / "dhn" / "py.typed").is_file()
    page = ROOT / "tools" / "dhn" / "search" / "server" / "page"
    assert {f"dhn/search/server/page/{path.name}" for path in page.iterdir()} <= set(installed.names)


def test_names_of_modules_stay_the_users(installed):
    done = installed.run(code="import dhn, labels")
    assert done.returncode == 1 and done.stderr.endswith("ModuleNotFoundError: No module named 'labels'\n")


def test_the_plug_in_comes_along(installed):
    done = installed.run(
        code="import caffe.layer, authors_forks.layers, authors_forks.losses\n"
        "for module in caffe, authors_forks.layers, authors_forks.losses: print(module.__file__)\n"
        "caffe.layer.create(caffe.proto.caffe_pb2.LayerParameter(name='it', type='ScaleTanH'))"
    )
    assert done.returncode == 0, done.stderr
    places = done.stdout.splitlines()
    assert len(places) == 3 and all(place.startswith(str(installed.site)) for place in places)


def test_the_commands_of_the_wheel(installed):
    # the user's own modules of these names are not taken for the toolkit's
    for name in ("labels.py", "net.py", "train.py"):
        (installed.user / name).write_text("raise SystemExit('mine')\n")
    assert installed.run("--help").stdout.rstrip("\n") == __main__.overview()
    done = installed.run("score-map", "--query", "none.npz", "--database", "none.npz")
    assert done.returncode == 2 and done.stderr.startswith("score_map: none.npz: ") and done.stderr.count("\n") == 1
    asked = installed.run("train", "--help").stdout
    assert asked.startswith("usage: dhn train ")


def test_codes_are_scored_and_searched_without_a_c_compiler(installed):
    codes, labels = np.float32([[1, 1], [-1, -1]]), np.uint8([[1, 0], [0, 1]])
    np.savez(installed.user / "codes.npz", codes=codes, labels=labels)
    done = installed.run("score-map", "--query", "codes.npz", "--database", "codes.npz", "--json")
    assert done.returncode == 0 and '"map": 1.0' in done.stdout, done.stderr
    assert done.stderr.startswith("scoring: expected the library that an installation compiles from ")
    done = installed.run("build-index", "--codes", "codes.npz", "--out", "index")
    assert done.returncode == 0, done.stderr
    done = installed.run("search", "index", "--codes", "codes.npz", "--csv")
    assert done.returncode == 0 and done.stdout.count("\n") == 5, done.stdout + done.stderr
    assert done.stderr.startswith("search: expected the library that an installation compiles from ")


def test_data_lands_where_the_user_is(installed):
    for label in ("a", "b"):
        (installed.user / "photos" / label).mkdir(parents=True)
        for number in range(3):
            cv2.imwrite(str(installed.user / "photos" / label / f"{number}.png"), np.full((8, 8, 3), 40 * number))
    (installed.user / "birds.json").write_text(
        '{"source": {"kind": "folder", "path": "photos"}, "splits": {"mine": {"query": {"per_label": 1}, '
        '"train": {"per_label": 1}, "database": "rest", "R": "all"}}}'
    )
    done = installed.run("get-data", "birds.json")
    assert done.returncode == 0, done.stderr
    with lmdb.open(str(installed.user / "data" / "birds" / "query_lmdb"), readonly=True, lock=False) as database:
        assert database.stat()["entries"] == 2
    done = installed.run("get-data", "cifar10")  # a built-in recipe, whose files are looked for in data/
    assert done.returncode == 1 and str(installed.user / "data" / "cifar10") in done.stderr
    done = installed.run("net", "birds", "--bits", "8", "--out", "runs/mine")
    assert done.returncode == 0, done.stderr
    done = installed.run("net", "birds", "--bits", "8", "--out", "runs/cut", "--set", "crop=99", "--set", "lambda=1")
    assert done.returncode == 2 and "crop 99 is larger" in done.stderr and "=)" not in done.stderr
    done = installed.run("net", "birds", "--bits", "8", "--variant", "dhn_q", "--out", "runs/cut", "--set", "lambda=1")
    assert "--set lambda=1: dhn_q has no such loss" in done.stderr and "LAMBDA" not in done.stderr
    text = (installed.user / "runs" / "mine" / "train_val.prototxt").read_text()
    assert text.startswith("# Written by: python prototxt/net.py birds --variant dhn --bits 8 --out runs/mine\n")
