"""Who imports whom where there are no packages, and who prints. pyproject.toml has the rules of the packages."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = {path.stem: path for path in sorted((ROOT / "tools").glob("*.py"))}
LIBRARY = sorted((ROOT / "tools" / "dhn").rglob("*.py"))
PYTHON_LAYERS = {path.stem: path for path in sorted((ROOT / "python_layers").glob("*.py"))}
ENGINE = sorted((ROOT / "engine").rglob("*.py"))
FORKS = sorted((ROOT / "python_layers" / "authors_forks").glob("*.py"))
PROTOTXT = {path.stem: path for path in sorted((ROOT / "prototxt").glob("*.py"))}
TORCH = {"convert_weights": "reads and writes files of torch's"}  # the commands that may import it, and why

# of the flat Python layers: what they import of the engine in a try, and go without on stock BVLC Caffe
IN_TRY = {"lmdb_files": {"caffe.data", "caffe.data.lmdb_pages"}}


def modules(path: Path) -> set[str]:
    """The modules that a file imports, also inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported(path: Path) -> set[str]:
    """The top-level names of the modules that a file imports."""
    return {module.split(".")[0] for module in modules(path)}


def prints(path: Path) -> Iterator[str]:
    """What a file does that only a command may: print, exit."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "exit", "quit", "sys.exit", "os._exit", "SystemExit"):
                yield f"{path.relative_to(ROOT)}:{node.lineno} calls {called}"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.path", "sys.argv"):
            yield f"{path.relative_to(ROOT)}:{node.lineno} uses {ast.unparse(node)}"


@pytest.mark.parametrize("path", COMMANDS.values(), ids=COMMANDS)
def test_a_file_in_tools_is_a_command(path):
    text = path.read_text()
    assert text.endswith('if __name__ == "__main__":\n    sys.exit(dhn.run(main))\n')
    assert f"python tools/{path.name}" in ast.get_docstring(ast.parse(text)), "its docstring says how it is typed"
    assert "sys.path" not in text, "its modules come from the installed project"


def test_nobody_imports_a_command():
    importers = [*COMMANDS.values(), *LIBRARY, *PYTHON_LAYERS.values(), *PROTOTXT.values(), *ENGINE, *FORKS]
    assert [str(path) for path in importers if imported(path) & set(COMMANDS)] == []


def test_the_engine_imports_no_module_of_a_flat_name():
    flat = {*PYTHON_LAYERS, *PROTOTXT}
    assert "net" in flat and ENGINE
    assert [str(path) for path in ENGINE if imported(path) & flat] == []


@pytest.mark.parametrize("path", LIBRARY)
def test_only_commands_print_and_exit(path):
    # the one says that nothing is installed, the other is the command `dhn`
    allowed = path.parent.name == "dhn" and path.name in ("__init__.py", "__main__.py")
    assert allowed or not list(prints(path))


@pytest.mark.parametrize("path", [*COMMANDS.values(), *LIBRARY, *ENGINE])
def test_command_lines_are_read_by_our_parser(path):
    assert path.name == "command_lines.py" or "argparse.ArgumentParser(" not in path.read_text()


@pytest.mark.parametrize("path", COMMANDS.values(), ids=COMMANDS)
def test_torch_is_the_engines(path):
    assert "torch" not in imported(path) or path.stem in TORCH


@pytest.mark.parametrize("path", PROTOTXT.values(), ids=PROTOTXT)
def test_prototxt_imports_caffe_alone(path):
    assert imported(path) <= {"caffe", "google", *PROTOTXT, *sys.stdlib_module_names}


@pytest.mark.parametrize("path", PYTHON_LAYERS.values(), ids=PYTHON_LAYERS)
def test_flat_python_layers_import_what_stock_caffe_has(path):
    assert imported(path) <= {"caffe", "numpy", "google", "lmdb", "cv2", *PYTHON_LAYERS, *sys.stdlib_module_names}
    engine_only = ("caffe.glog", "caffe.layer", "caffe.layer_types", "caffe.data")
    used = {module for module in modules(path) if module.startswith(engine_only)}
    assert used == IN_TRY.get(path.stem, set())


@pytest.mark.parametrize("path", COMMANDS.values(), ids=COMMANDS)
def test_a_checkout_that_is_not_installed_says_so_in_one_sentence(path):
    command = [sys.executable, "-E", "-S", str(path), "--help"]  # -S: no site-packages
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and ended.stdout == "" and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"{ROOT} is not installed: run `make test` or `pip install -e .` there")


def test_a_module_of_a_flat_name_from_elsewhere_is_named(tmp_path):
    (tmp_path / "pictures.py").write_text("")
    ended = subprocess.run(
        [sys.executable, "-c", "import dhn"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert f"{ROOT} is not what is imported: pictures comes from {tmp_path / 'pictures.py'}: run" in ended.stderr


def test_a_modules_name_has_one_file(pytestconfig):
    """The tests import from all these folders: of two files of one name, the second is never seen."""
    folders = pytestconfig.getini("pythonpath")
    names = Counter(path.stem for folder in folders for path in folder.glob("*.py"))
    names.update(path.parent.name for folder in folders for path in folder.glob("*/__init__.py"))
    assert names and [name for name, count in names.items() if count > 1] == []
