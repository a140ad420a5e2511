"""caffe.imports: modules without garbage collections, and what `caffe.Net` does not wait for."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
from caffe.imports import import_module


@pytest.fixture
def collector():
    """It is enabled afterwards, whatever a test does."""
    gc.enable()
    yield
    gc.enable()


def test_the_collector_rests_during_an_import(tmp_path, monkeypatch, collector):
    (tmp_path / "collected.py").write_text("import gc\nENABLED = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_module("collected").ENABLED is False
    assert gc.isenabled() and gc.get_freeze_count() == 0
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
