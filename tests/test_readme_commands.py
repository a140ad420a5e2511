"""The blocks of commands in the pages: each is typed in a miniature of the project, or read by the command it names."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from caffe.cli.flags import Flags
from dhn.datasets import recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "tools/README.md", "engine/README.md")
BIN = ROOT / ".venv" / "bin"
SCRIPTS = dict(re.findall(r'^(\w+) = "(caffe[\w.]*:\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()

# Blocks that are typed from the first line to the last: what they begin with, and the test that does it.
TYPED = {
    "python tools/get_data.py fashion_mnist": "tests/test_readme_commands.py",
    "python train.py": "tests/engine/test_project.py",
}
# Blocks whose lines are only read, each by the command that it names, and why they are not typed here.
READ = {
    "make": "downloads or trains for minutes; tests/tools/test_commands_end_to_end.py types them in miniature",
    "caffe": "the forms of a command, with files that a reader has; tests/engine/test_cli.py runs it",
    "python tools/build_index.py": "with an index that a reader has; tests/tools/test_search_command.py types them",
    "{": "a recipe of a data set; tests/tools/test_commands_end_to_end.py makes the data of one",
}
# What is smaller in the miniature: the file, what it says, what it says there.
FASHION_MNIST = "tools/dhn/datasets/fashion_mnist.py"
TABLE = "prototxt/dataset_table.py"
SMALLER = (
    (FASHION_MNIST, "QUERY_PER_CLASS, TRAIN_PER_CLASS = 100, 500", "QUERY_PER_CLASS, TRAIN_PER_CLASS = 2, 8"),
    (TABLE, 'fashion_mnist/train_lmdb", "batch_size": 64', 'fashion_mnist/train_lmdb", "batch_size": 16'),
    (TABLE, 'fashion_mnist/query_lmdb", "batch_size": 100', 'fashion_mnist/query_lmdb", "batch_size": 10'),
    (TABLE, '("test_iter", 10,', '("test_iter", 2,'),
)


def blocks() -> list[str]:
    """The indented blocks of the pages, without their indent; one that two pages have counts once."""
    pages = "\n".join((ROOT / page).read_text() for page in PAGES)
    indented = dict.fromkeys(re.findall(r"(?<=\n\n)(?:    .+\n)+", pages))
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in indented]


def commands(block: str) -> list[str]:
    """The commands of a block: lines that end in a backslash go on, what is said of a command is left out."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shorten(re.split(r"\s{2,}#\s", line)[0].strip()) for line in lines]


def shorten(line: str) -> str:
    """A line without what is said of its command; for make that needs no sign but blanks."""
    words = line.split()
    if words[0] != "make":
        return line
    known = itertools.takewhile(lambda word: word in TARGETS or re.match(r"[A-Z_]+=", word), words[1:])
    return " ".join(["make", *known])


def kind(block: str) -> str | None:
    """The key of TYPED or READ that a block belongs to, None for a block that neither knows."""
    return next((key for key in (*TYPED, *READ) if re.match(re.escape(key) + r"(\W|$)", block)), None)


BLOCKS = blocks()
LINES = [(kind(block), line) for block in BLOCKS if kind(block) not in ("{", None) for line in commands(block)]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_typed_or_read(block, tmp_path):
    place = kind(block)
    assert place, "a page has a block that is neither typed nor read: add it to TYPED or READ"
    if place in TYPED:
        text = (ROOT / TYPED[place]).read_text()
        assert place in text and "README.md" in text
    if place == "{":
        (tmp_path / "recipe.json").write_text(block)
        recipes.read(tmp_path / "recipe.json")


def test_the_tables_know_no_block_that_is_gone():
    assert {kind(block) for block in BLOCKS} == {*TYPED, *READ}
    named = re.findall(r"tests/\S+\.py", " ".join((*TYPED.values(), *READ.values())))
    assert named and all((ROOT / path).exists() for path in named)


class Parsed(Exception):
    """Raised in the place of what a command would do, once its options are read."""


@pytest.mark.parametrize(("place", "line"), LINES)
def test_every_command_takes_its_options(place, line, monkeypatch):
    for words in forms(line):
        if TYPED.get(place) == "tests/engine/test_project.py" and words[0] in ("python", "./build/tools/caffe"):
            assert place in TYPED  # its scripts are the project's own
            continue
        read(words, monkeypatch)


def forms(line: str) -> list[list[str]]:
    """A command's words, without variables and redirections; a form for each choice of its [brackets | of options]."""
    choices = [["", *group.split("|")] for group in re.findall(r"\[([^]]*)\]", line)]
    found = []
    for number in range(max(map(len, choices), default=1)):
        chosen = iter([each[number % len(each)] for each in choices])
        text = re.sub(r"\[[^]]*\]", lambda _, chosen=chosen: next(chosen), line)
        words = shlex.split(re.sub(r"\d?>>?\s*\S+", "", text))
        found.append(list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words)))
    return found


def read(words: list[str], monkeypatch) -> None:
    """Let the command that is named read its options; it does nothing else."""
    if words[0] == "export":
        assert re.match(r"[A-Z_]+=\S+$", words[1])
    elif words[0] == "make":
        typed = [re.sub(r"=\.\.\.$", "=1", word) for word in words[1:]]
        command = ["make", "-n", "-o", ".venv/.installed", *typed]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr
    elif words[0] == "python":
        script = ROOT / words[1]
        assert script.exists() and script.parent.name in ("tools", "prototxt")
        parse(importlib.import_module(script.stem).main, words[2:], monkeypatch)
    else:
        module, _, function = SCRIPTS[words[0]].partition(":")
        parse(getattr(importlib.import_module(module), function), words[1:], monkeypatch)


def only(method):
    """A method that raises Parsed when it is done."""

    def reading(*arguments, **named):
        method(*arguments, **named)
        raise Parsed

    return reading


def parse(main, words: list[str], monkeypatch) -> None:
    """Call a command's main; Parsed ends it as soon as argparse or the engine's flags have read the words."""
    for owner, name in ((argparse.ArgumentParser, "parse_args"), (Flags, "parse")):
        monkeypatch.setattr(owner, name, only(getattr(owner, name)))
    try:
        with pytest.raises(Parsed):
            main(words)
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("line", "fails"),
    [
        ("make score ITERATIONS=20", AssertionError),
        ("python tools/extract_codes.py --modle x", SystemExit),
        ("caffe train -sovler x", pytest.fail.Exception),
        ("python tools/nowhere.py", AssertionError),
        ("cafe train", KeyError),
    ],
)
def test_a_command_that_is_not_there_is_found(line, fails, monkeypatch):
    with pytest.raises(fails):
        read(shlex.split(line), monkeypatch)


def idx(array: np.ndarray) -> bytes:
    """An array as a gzipped idx file."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes(), 1, mtime=0)


def write_miniature(folder: Path) -> None:
    """A copy of the project with a small Fashion-MNIST at hand."""
    for name in ("tools", "prototxt", "python_layers"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    random = np.random.RandomState(0)
    (folder / "data" / "fashion_mnist").mkdir(parents=True)
    source = (folder / FASHION_MNIST).read_text()
    for part, count in (("train", 200), ("t10k", 20)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = random.randint(0, 60, (count, 28, 28)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 8] += 180
        for name, array in ((f"{part}-images-idx3-ubyte.gz", images), (f"{part}-labels-idx1-ubyte.gz", labels)):
            raw = idx(array)
            (folder / "data" / "fashion_mnist" / name).write_bytes(raw)
            digest = hashlib.sha256(gzip.decompress(raw)).hexdigest()
            source, changed = re.subn(rf'("{name}": )"\w+"', rf'\1"{digest}"', source)
            assert changed == 1
    (folder / FASHION_MNIST).write_text(source)
    for path, real, smaller in SMALLER:
        text = (folder / path).read_text()
        assert text.count(real) == 1, f"{path} has no {real} any more"
        (folder / path).write_text(text.replace(real, smaller))


def install(folder: Path) -> Path:
    """The bin folder of an environment in which the copy is installed, as `pip install -e .` does it; no downloads."""
    environment = folder / ".venv"
    venv.create(environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    paths = [ROOT / "engine", *(folder / name for name in ("python_layers", "tools", "prototxt"))]
    paths.append(Path(pytest.__file__).resolve().parents[1])  # the dependencies, without what is editable there
    (packages / "copy.pth").write_text("".join(f"{path}\n" for path in paths))
    caffe = environment / "bin" / "caffe"
    caffe.write_text(f"#!{environment}/bin/python\nimport sys\nfrom caffe.cli.main import main\nsys.exit(main())\n")
    caffe.chmod(0o755)
    return environment / "bin"


@pytest.mark.skipif(not BIN.exists() or shutil.which("bash") is None, reason="needs .venv and bash")
@pytest.mark.slow  # a dozen processes that import torch, 1,600 iterations: a minute and a half
def test_the_pieces_by_hand(tmp_path):
    """The block of what `make` is made of, in one shell, as a reader pastes it."""
    write_miniature(tmp_path)
    (block,) = [block for block in BLOCKS if kind(block) == "python tools/get_data.py fashion_mnist"]
    installed = install(tmp_path)
    environment = {**os.environ, "PATH": f"{installed}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    command = ["bash", "-e", "-c", block]
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, f"{said.stdout[-2000:]}\n{said.stderr[-3000:]}"
    with np.load(tmp_path / "runs/mine/query.npz") as query, np.load(tmp_path / "runs/mine/database.npz") as database:
        assert query["codes"].shape == (20, 48) and database["codes"].shape == (120, 48)
    metrics = json.loads((tmp_path / "runs/mine/metrics.json").read_text())
    assert metrics["queries"] == 20 and 0.5 < metrics["map"] <= 1, "bars at the height of their class are easy"
