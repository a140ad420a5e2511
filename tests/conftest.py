"""What all tests share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def log_folder(tmp_path_factory):
    """Log files of the commands that the tests run go into a folder of theirs, not into /tmp."""
    with pytest.MonkeyPatch.context() as patch:
        if "GLOG_log_dir" not in os.environ:
            patch.setenv("GLOG_log_dir", str(tmp_path_factory.mktemp("glog")))
        yield
