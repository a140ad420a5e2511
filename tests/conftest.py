"""What all tests share: the log is as without any GLOG_ variable, and its files go into a folder of the tests."""

from __future__ import annotations

import os
import tempfile

import pytest

_LOGS = tempfile.TemporaryDirectory(prefix="caffe-logs-")  # not /tmp itself; removed at the end

# before caffe.glog is imported, which reads them
for _name in [name for name in os.environ if name.startswith("GLOG_")]:
    del os.environ[_name]
os.environ["GLOG_log_dir"] = _LOGS.name  # noqa: SIM112


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What a test printed travels between pytest-xdist's processes as UTF-8: bytes that are none are shown escaped."""
    outcome = yield
    report = outcome.get_result()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
