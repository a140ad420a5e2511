"""What all tests share: the log is as without any GLOG_ variable, and its files go into a folder of the tests.

pytest-xdist's processes compute with one thread each: there are as many of them as cores.
Each file is shown as it ends, with its counts and seconds, also by pytest-xdist's processes; `-v` or `-vv` shows more.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections import Counter

import pytest

_LOGS = tempfile.TemporaryDirectory(prefix="caffe-logs-")  # not /tmp itself; removed at the end

# before caffe.glog is imported, which reads them
for _name in [name for name in os.environ if name.startswith("GLOG_")]:
    del os.environ[_name]
os.environ["GLOG_log_dir"] = _LOGS.name  # noqa: SIM112

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts its background jobs: commands would ignore ^C
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported, which reads it
    os.environ.setdefault("OMP_NUM_THREADS", "1")


class Records(logging.Handler):
    """Collects what the engine logs."""

    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logged():
    """The engine's log records since the test began, INFO and above: a list, which grows. pytest's own caplog would
    format each line of every test's log twice."""
    handler, logger = Records(), logging.getLogger("caffe")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What a test printed travels between pytest-xdist's processes as UTF-8: bytes that are none are shown escaped."""
    outcome = yield
    report = outcome.get_result()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]


LAST = ("last of its file", True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Marks the last test of a file; and after each test the log and what ^C does are as before it, for a command that
    a test calls may set GLOG_minloglevel or ignore ^C, as it may in a process of its own."""
    if nextitem is None or nextitem.path != item.path:
        item.user_properties.append(LAST)  # travels with the reports
    logger = logging.getLogger("caffe")
    level, variables = logger.level, {name: os.environ[name] for name in os.environ if name.startswith("GLOG_")}
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, interrupt)
    logger.setLevel(level)
    for name in [name for name in os.environ if name.startswith("GLOG_")]:
        del os.environ[name]
    os.environ.update(variables)


class FileLines:
    """Prints one line a file instead of a dot a test: `path  outcomes  seconds`."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.outcomes: dict[str, Counter] = {}  # by file
        self.seconds = Counter()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_report_teststatus(self, report):
        """The category by which pytest counts a report, without the letter that it would print."""
        answer = yield
        category, _, word = answer.get_result()
        if category:
            self.outcomes.setdefault(report.nodeid.split("::")[0], Counter())[category] += 1
        answer.force_result((category, "", "" if category == "passed" else word))

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        file = report.nodeid.split("::")[0]
        self.seconds[file] += report.duration
        if report.when == "teardown" and LAST in [tuple(each) for each in report.user_properties]:
            counts = ", ".join(f"{count} {category}" for category, count in self.outcomes.pop(file, {}).items())
            self.terminal.write_line(f"{file}  {counts}  {self.seconds.pop(file):.1f} s")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal and config.get_verbosity() < 0:
        config.pluginmanager.register(FileLines(terminal))


@pytest.fixture
def hangups():
    """SIGHUP is not ignored. Under nohup it is, and commands leave that as it is."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
