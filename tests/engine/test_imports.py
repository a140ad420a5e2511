"""caffe.imports: modules without garbage collections, and what `caffe.Net` does not wait for."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
from atomic_writes import ending
from caffe.imports import import_module


@pytest.fixture
def collector(monkeypatch):
    """It is enabled afterwards, whatever a test does, and this process is no command, whatever was called before."""
    monkeypatch.setattr(ending, "_program", "")
    gc.enable()
    yield
    gc.enable()


def test_the_collector_rests_during_an_import(tmp_path, monkeypatch, collector):
    (tmp_path / "collected.py").write_text("import gc\nENABLED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()  # what a command that was called here has frozen
    assert import_module("collected").ENABLED is False
    assert gc.isenabled() and gc.get_freeze_count() == before
    monkeypatch.delitem(sys.modules, "collected")


def test_the_collector_is_as_before_also_after_an_error(collector):
    with pytest.raises(ModuleNotFoundError):
        import_module("no_such_module")
    assert gc.isenabled()
    gc.disable()
    import_module("caffe")
    assert not gc.isenabled()


def test_a_net_does_not_wait_for_what_few_nets_need(tmp_path):
    """sympy is what torch.autograd.grad would import."""
    (tmp_path / "net.prototxt").write_text(
        'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '
        'layer { name: "y" type: "Sigmoid" bottom: "x" top: "y" }'
    )
    program = (
        "import caffe, sys; net = caffe.Net(sys.argv[1], caffe.TEST); net.forward(); net.backward(); "
        "print([name for name in ('cv2', 'h5py', 'scipy', 'sympy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "net.prototxt")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_command_collects_what_it_makes_and_no_more_what_it_imported(tmp_path):
    """A file that a user's module never closes is written when the module is collected, as the command ends."""
    (tmp_path / "users.py").write_text("log = open('log', 'w')\nlog.write('all of it')\ndef layer(): return log\n")
    program = (
        "import gc; from atomic_writes import ending; from caffe.imports import import_module; "
        "before = gc.get_freeze_count(); import_module('colorsys'); ending.exit_at_signals('command'); "
        "import_module('wave'); print(before, gc.get_freeze_count() > 0, gc.isenabled()); import users"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "0 True True\n"
    assert (tmp_path / "log").read_text() == "all of it"
