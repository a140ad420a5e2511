"""Log files, and where the log goes: what glog 0.4 does in BVLC's `caffe`. Names and texts are those BVLC wrote."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from types import SimpleNamespace

import pytest
from caffe import glog, log_files
from caffe.cli.main import FLAGS, main

# `caffe time` logs info lines; the old input field a warning; a missing solver an error
NET = 'input: "data" input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2 layer { name: "r" type: "ReLU" bottom: "data" '
TIME = "time -model net.prototxt -iterations 1"
STAMPED = r"^[IWE]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.cpp:\d+\] "


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a net, an empty folder `log` that GLOG_log_dir names, and a user called joe."""
    (tmp_path / "net.prototxt").write_text(NET + 'top: "r" }')
    (tmp_path / "log").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLOG_log_dir", "log")
    monkeypatch.setenv("USER", "joe")
    return tmp_path


def run(capfd, command: str) -> list[str]:
    """The lines that `caffe COMMAND` writes to stderr."""
    capfd.readouterr()
    assert main(command.split()) == 0
    return capfd.readouterr().err.splitlines()


def names(path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_one_file_a_run_and_severity_and_a_link_to_the_newest(folder, capfd, monkeypatch):
    lines = run(capfd, TIME)
    stem = f"caffe.{re.escape(platform.node())}.joe.log"
    first = names(folder / "log")
    assert first[:2] == ["caffe.INFO", "caffe.WARNING"]
    assert re.fullmatch(rf"{stem}\.INFO\.\d{{8}}-\d{{6}}\.{os.getpid()}", first[2])
    assert re.fullmatch(rf"{stem}\.WARNING\.\d{{8}}-\d{{6}}\.{os.getpid()}", first[3])
    assert [os.readlink(folder / "log" / link) for link in first[:2]] == first[2:]
    header, text = (folder / "log" / "caffe.INFO").read_text().split("msg\n")
    assert re.fullmatch(
        rf"Log file created at: \d{{4}}/\d\d/\d\d \d\d:\d\d:\d\d\nRunning on machine: {re.escape(platform.node())}\n"
        r"Log line format: \[IWEF\]mmdd hh:mm:ss\.uuuuuu threadid file:line\] ",
        header,
    )
    assert text.splitlines() == lines and re.match(STAMPED, lines[0])
    warnings = (folder / "log" / "caffe.WARNING").read_text().splitlines()[3:]
    assert warnings == [line for line in lines if line.startswith("W")] != []
    monkeypatch.setattr(os, "getpid", lambda: 7)
    run(capfd, TIME)
    assert len(names(folder / "log")) == 6
    assert os.readlink(folder / "log" / "caffe.INFO").endswith(".7")


def test_an_error_reaches_all_files_and_the_link_of_another_is_left(folder, capfd):
    (folder / "log" / "caffe.WARNING").mkdir()
    assert main(["train", "-solver", "nowhere.prototxt"]) == 1
    line = capfd.readouterr().err
    files = [path for path in (folder / "log").iterdir() if ".log." in path.name]
    assert sorted(path.name.split(".log.")[1].split(".")[0] for path in files) == ["ERROR", "INFO", "WARNING"]
    assert all(path.read_text().endswith(line) for path in files)
    assert (folder / "log" / "caffe.WARNING").is_dir() and (folder / "log" / "caffe.ERROR").is_symlink()


@pytest.mark.parametrize("place", ["nowhere", "net.prototxt"])
def test_a_folder_that_cannot_be_written_stops_nothing(folder, capfd, place):
    lines = run(capfd, f"{TIME} -log_dir log -log_dir={place}")
    assert sum("Benchmark ends" in line for line in lines) == 1
    (message,) = {line for line in lines if line.startswith("Could not create logging file: ")}
    assert message.split(": ")[1] in ("No such file or directory", "Not a directory")
    assert sum(f"COULD NOT CREATE A LOGGINGFILE {place}/caffe." in line for line in lines) == 2  # INFO, WARNING
    assert names(folder / "log") == []


def test_without_log_dir_the_temporary_folder(folder, capfd, monkeypatch):
    monkeypatch.delenv("GLOG_log_dir")
    for name in ("TEST_TMPDIR", "TMPDIR", "TMP"):
        monkeypatch.delenv(name, raising=False)
    flags = SimpleNamespace(log_dir="")
    assert log_files.folder(flags) == "/tmp"
    for name in ("TMP", "TMPDIR", "TEST_TMPDIR"):
        (folder / name).mkdir()
        monkeypatch.setenv(name, str(folder / name))
        assert log_files.folder(flags) == str(folder / name)
    monkeypatch.setenv("TEST_TMPDIR", "nowhere")
    run(capfd, TIME)
    assert names(folder / "TMPDIR")[:2] == ["caffe.INFO", "caffe.WARNING"]
    assert names(folder / "TMP") == names(folder / "log") == []


# flags or environment: (the levels seen on stderr, the links that are made)
PLACES = {
    "": ("IW", ["INFO", "WARNING"]),
    "-logtostderr": ("IW", []),
    "GLOG_logtostderr=1": ("IW", []),
    "GLOG_logtostderr=0": ("IW", ["INFO", "WARNING"]),
    "-noalsologtostderr": ("", ["INFO", "WARNING"]),
    "GLOG_alsologtostderr=0": ("IW", ["INFO", "WARNING"]),  # BVLC's tools set it themselves
    "-alsologtostderr=false -stderrthreshold 1": ("W", ["INFO", "WARNING"]),
    "GLOG_stderrthreshold=1 -noalsologtostderr": ("W", ["INFO", "WARNING"]),
    "-minloglevel 1": ("W", ["INFO", "WARNING"]),
    "GLOG_minloglevel=2": ("", []),
    "GLOG_minloglevel=2 -minloglevel=-1": ("IW", ["INFO", "WARNING"]),
}


@pytest.mark.parametrize("words", PLACES)
def test_where_the_log_goes(folder, capfd, monkeypatch, words):
    flags = []
    for word in words.split():
        name, _, value = word.partition("=")
        if word.startswith("GLOG"):
            monkeypatch.setenv(name, value)
        else:
            flags.append(word)
    lines = run(capfd, " ".join([TIME, *flags]))
    links = [name.split(".")[1] for name in names(folder / "log") if ".log." not in name]
    levels = sorted({line[0] for line in lines if re.match(STAMPED, line)})
    assert ("".join(levels), links) == PLACES[words]


def test_lines_without_their_prefix(folder, capfd, monkeypatch):
    assert run(capfd, f"{TIME} -nolog_prefix")[0] == "Use CPU."
    assert (folder / "log" / "caffe.INFO").read_text().splitlines()[3] == "Use CPU."
    monkeypatch.setenv("GLOG_log_prefix", "false")
    assert run(capfd, TIME)[0] == "Use CPU."
    assert re.match(STAMPED, run(capfd, f"{TIME} -log_prefix=true")[0])


def test_a_files_name_moves_no_cursor(capfd):
    glog.warning("here", "list.txt:3: \x1b[2J\x85a\x0b\u2028b\tä\nc")
    assert capfd.readouterr().err.endswith("list.txt:3: \ufffd[2J\ufffda\ufffd\ufffdb\tä\nc\n")


def test_additional_links(folder, capfd):
    (folder / "links").mkdir()
    run(capfd, f"{TIME} -log_link links")
    assert os.readlink(folder / "links" / "caffe.INFO") == "log/" + os.readlink(folder / "log" / "caffe.INFO")


def test_colors_on_a_terminal_alone(folder, capfd, monkeypatch):
    assert "\033" not in "".join(run(capfd, f"{TIME} -colorlogtostderr"))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    colored = [line for line in run(capfd, f"{TIME} -colorlogtostderr") if "\033" in line]
    assert colored and all(line.startswith("\033[0;33mW") and line.endswith("\033[m") for line in colored)
    assert "\033" not in (folder / "log" / "caffe.INFO").read_text()


def test_every_flag_of_glog_is_taken():
    """glog 0.4's list, from `caffe --helpfull` of BVLC's."""
    words = (
        "-alsologtoemail= -alsologtostderr -nocolorlogtostderr -drop_log_memory -log_backtrace_at= -log_dir ."
        " -log_link . -log_prefix -logbuflevel -1 -logbufsecs=0 -logemaillevel 999 -logfile_mode 436"
        " -logmailer /bin/mail -nologtostderr -max_log_size 1 -minloglevel 0 -stderrthreshold=0 "
        "-stop_logging_if_full_disk -symbolize_stacktrace -v 3 -vmodule net=2"
    )
    rest, values = FLAGS.parse(["train", *words.split()])
    assert rest == ["train"]
    assert (values.logbuflevel, values.v, values.vmodule, values.logfile_mode) == (-1, 3, "net=2", 0o664)
    assert len(glog.FLAGS) == len(re.findall(r"(?:^| )-[a-z]", words))


def test_mail_is_not_sent_and_said(folder, capfd):
    assert "the engine mails no log" in run(capfd, f"{TIME} -alsologtoemail=a@b.c")[0]


@pytest.fixture
def files(folder):
    log = log_files.LogFiles("p", SimpleNamespace(**{**glog.defaults(), "max_log_size": 0, "logfile_mode": 0o600}))
    yield log
    log.close()


def test_any_text_can_be_written(folder, files):
    for text in ("é", "caf\udce9", "\ud800"):  # the second is the byte E9 of a file's name, the third no text at all
        files.write(0, text)
    assert (folder / "log" / "p.INFO").read_bytes().endswith(b"msg\n\xc3\xa9\ncaf\xe9\n\\ud800\n")


def test_a_full_file_is_followed_by_another(folder, files, monkeypatch):
    files.write(0, "x" * (1 << 20))
    monkeypatch.setattr(time, "localtime", lambda: time.gmtime(0))
    files.write(0, "y")
    sizes = sorted(path.stat().st_size for path in (folder / "log").glob("p.*.INFO.*"))
    assert len(sizes) == 2 and sizes[0] < 200 and sizes[1] > 1 << 20
    assert {path.stat().st_mode & 0o777 for path in (folder / "log").glob("p.*.log.*")} == {0o600}


def test_a_forked_process_has_a_file_of_its_own(folder, files):
    files.write(0, "parent")
    child = os.fork()
    if child == 0:
        files.write(0, "child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    texts = {path.name.rsplit(".", 1)[1]: path.read_text() for path in (folder / "log").glob("p.*.log.*")}
    assert texts[str(child)].endswith("msg\nchild\n") and texts[str(os.getpid())].endswith("msg\nparent\n")


def test_a_full_disk(folder, files):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    (log,) = files._files[:1]
    log.write(b"first\n")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._descriptor)
    os.close(full)
    log.write(b"lost\n")  # goes on trying
    assert log._descriptor is not None
    log._flags.stop_logging_if_full_disk = True
    log.write(b"lost\n")
    assert log._descriptor is None
    log.write(b"lost\n")  # has stopped
    assert "lost" not in (folder / "log" / "p.INFO").read_text()


def test_the_environment_is_read_as_glog_reads_it(monkeypatch):
    for text, value in {"": True, "1": True, "yes": True, "T": True, "0": False, "on": False, "false": False}.items():
        monkeypatch.setenv("GLOG_logtostderr", text)
        assert glog.environment()["logtostderr"] is value
    for text, value in {"2": 2, " 1x": 1, "-1": -1, "many": 0}.items():
        monkeypatch.setenv("GLOG_minloglevel", text)
        assert glog.environment()["minloglevel"] == value
