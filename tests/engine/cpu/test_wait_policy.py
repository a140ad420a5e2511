"""OMP_WAIT_POLICY: chosen by the package before torch is loaded, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from caffe.cli import doctor
from caffe.cpu import wait_policy

# ends where torch would be loaded, and says what torch would find
UP_TO_TORCH = """
import os, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
import caffe
caffe.Net
"""


@pytest.mark.parametrize("chosen, expected", [(None, "passive"), ("active", "active")])
def test_it_is_set_when_torch_is_loaded(chosen, expected):
    environment = {name: value for name, value in os.environ.items() if name not in wait_policy.VARIABLES}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), **({"OMP_WAIT_POLICY": chosen} if chosen else {})}
    answer = subprocess.run([sys.executable, "-c", UP_TO_TORCH], env=environment, capture_output=True, text=True)
    assert answer.stdout.strip() == expected, answer.stderr


@pytest.mark.parametrize("name, value", [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "1000")])
def test_what_the_user_chose_stays(name, value, monkeypatch):
    for variable in wait_policy.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "torch")
    assert wait_policy.set_default() == f"{name}={value}, as the environment has it"
    assert [os.environ.get(variable) for variable in wait_policy.VARIABLES].count(None) == 1


def test_too_late_is_said(monkeypatch):
    for variable in wait_policy.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert wait_policy.set_default() == "OpenMP's default: torch was imported before caffe"
    assert "OMP_WAIT_POLICY" not in os.environ


def test_doctor_says_it():
    assert doctor._threads().split(maxsplit=2) == ["threads", "wait", wait_policy.POLICY]
