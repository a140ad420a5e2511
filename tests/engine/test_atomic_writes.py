"""Files and folders that appear complete or not at all, whatever stands at their path and whoever is killed."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import atomic_writes
import caffe
import numpy as np
import pytest
from atomic_writes import locks, write_atomic
from atomic_writes.folders import replacing_folder
from caffe.atomic_files import write_atomic_hdf5


def write(path, data=b"new"):
    write_atomic(path, lambda stream: stream.write(data))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"old")
    (tmp_path / "real" / "file").chmod(0o640)
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("real/file")
    dangling.symlink_to("real/other")
    write(link)
    write(dangling)
    assert link.is_symlink() and dangling.is_symlink()
    assert names(tmp_path / "real") == ["file", "other"]
    assert (tmp_path / "real" / "file").read_bytes() == (tmp_path / "real" / "other").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real" / "file").stat().st_mode) == 0o640


def test_a_fifo_is_written_straight(tmp_path):
    fifo, received = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    write_atomic(fifo, lambda stream: np.savez(stream, codes=np.arange(5)))  # which goes back in what it writes
    reader.join()
    assert stat.S_ISFIFO(fifo.stat().st_mode) and received[0].startswith(b"PK") and names(tmp_path) == ["fifo"]


def test_hdf5_into_a_fifo_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"cannot write .*fifo: expected a regular file, found a FIFO"):
        write_atomic_hdf5(tmp_path / "fifo", lambda file: None)
    param = 'layer { name: "o" type: "HDF5Output" bottom: "a" bottom: "b"'
    param += f' hdf5_output_param {{ file_name: "{tmp_path}/fifo" }} }}'
    inputs = 'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 1 dim: 1 } } }'
    (tmp_path / "net.prototxt").write_text(inputs + param)
    with pytest.raises(ValueError, match=r"layer 'o' .*found a FIFO"):
        caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and names(tmp_path) == ["fifo", "net.prototxt"]


def test_errors_name_the_file(tmp_path, monkeypatch):
    def fails(path, kind, message):
        with pytest.raises(kind, match=message) as caught:
            write(path)
        assert str(path) in str(caught.value)

    fails(tmp_path, IsADirectoryError, "a folder is there")
    fails(tmp_path / "none" / "file", FileNotFoundError, "there is no folder .*none; make it first")
    (tmp_path / "file").write_bytes(b"")
    fails(tmp_path / "file" / "file", NotADirectoryError, "Not a directory")
    (tmp_path / "loop").symlink_to("loop")
    fails(tmp_path / "loop", OSError, "Too many levels")

    def full(stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"^cannot write .*file: No space left on device$") as caught:
        write_atomic(tmp_path / "file", full)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["file", "loop"]


def test_names_as_long_as_the_file_system_has(tmp_path):
    write(tmp_path / ("ü" * 127))
    assert names(tmp_path) == ["ü" * 127]


def test_two_writers_do_not_mix(tmp_path):
    """Both write half of their bytes before either goes on: with one temporary file the result was a mixture."""
    path, half = tmp_path / "file", threading.Barrier(2)

    def fill(stream, byte):
        stream.write(byte * 5000)
        stream.flush()
        half.wait()
        stream.write(byte * 5000)

    threads = [threading.Thread(target=write_atomic, args=(path, lambda stream, byte=byte: fill(stream, byte)))
               for byte in (b"a", b"b")]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in (b"a" * 10000, b"b" * 10000) and names(tmp_path) == ["file"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    source = (
        "import os, signal, sys; from atomic_writes import write_atomic\n"
        "write_atomic(sys.argv[1], lambda stream: os.kill(os.getpid(), signal.SIGKILL))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", source, tmp_path / "model"], env=environment, check=False)
    left = names(tmp_path)
    assert len(left) == 1 and left[0].startswith(".model.")
    for other in ("mine.part", ".mine.part", f".model.{os.getppid()}.0.part"):  # the last is of a living process
        (tmp_path / other).touch()
    write(tmp_path / "another")
    assert names(tmp_path) == sorted(["another", "mine.part", ".mine.part", f".model.{os.getppid()}.0.part"])


def test_folders_and_the_disk(tmp_path, monkeypatch):
    """The file's bytes are on the disk before the rename, the rename after it."""
    calls = []
    sync, replace = os.fsync, os.replace

    def note(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    write(tmp_path / "file")
    assert calls == ["file", "rename", "folder"]


def test_a_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    out = tmp_path / "out"
    for exchange in (True, False):
        if not exchange:
            monkeypatch.setattr(atomic_writes.folders, "_exchange", lambda one, other: False)
        for content in ("first", "second"):
            with replacing_folder(out) as partial:
                assert names(partial) == []
                (partial / content).write_text(content)
            assert names(out) == [content] and names(tmp_path) == ["out"]
    with pytest.raises(KeyboardInterrupt), replacing_folder(out) as partial:
        (partial / "third").touch()
        raise KeyboardInterrupt
    assert names(out) == ["second"] and names(tmp_path) == ["out"]
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "left").touch()
    (tmp_path / ".out.lock").write_text("process 1 on another machine")
    with replacing_folder(out) as partial:
        assert names(partial) == []


def test_two_writers_of_a_folder(tmp_path):
    with replacing_folder(tmp_path / "out"):
        who = f"process {os.getpid()} on .* is writing it; wait for it"
        with pytest.raises(locks.HeldError, match=f"^cannot write .*out: {who}"), replacing_folder(tmp_path / "out"):
            pass
        assert names(tmp_path) == [".out.lock", "out.partial"]
    assert names(tmp_path) == ["out"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(NotADirectoryError, match="file: expected a folder, or nothing"),
        replacing_folder(tmp_path / "file"),
    ):
        pass
    assert names(tmp_path) == ["file", "out"]


def test_a_folder_that_is_moved_in_two_steps_comes_back_when_killed_between_them(tmp_path):
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "content").touch()
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["out"] and names(tmp_path / "out") == ["content"]


HOLDER = """
import os, signal, sys
from atomic_writes import locks
sys.argv = ["tools/create_lmdb.py", "my list.txt", "out"]
with locks.hold("out"):
    print("held", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_lock_says_who_holds_it_and_a_dead_process_holds_none(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        since = r"\(create_lmdb.py 'my list.txt' out, since \d{4}-\d\d-\d\d [\d:]{8}\) is writing it; wait for it"
        said = rf"^cannot write .*out: process {holder.pid} on \S+ {since}"
        with pytest.raises(locks.HeldError, match=said), locks.hold(tmp_path / "out"):
            pass
        holder.kill()
    assert names(tmp_path) == [".out.lock"]
    with locks.hold(tmp_path / "out"):
        assert names(tmp_path) == [".out.lock"]
    assert names(tmp_path) == []


def test_a_signal_at_any_call_leaves_no_lock(tmp_path):
    """Python raises a signal's exception as a call returns: its value, a descriptor say, is then lost."""
    calls = 0

    def interrupt(frame, event, _):
        nonlocal calls
        if event == "c_return" and frame.f_code.co_filename == locks.__file__:
            calls += 1
            if calls == number:
                raise KeyboardInterrupt

    for number in range(1, 100):
        calls = 0
        before = sys.getprofile()
        sys.setprofile(interrupt)
        try:
            with locks.hold(tmp_path / "out"):
                pass
        except KeyboardInterrupt:
            pass
        else:
            break  # there are no more calls
        finally:
            sys.setprofile(before)
        assert names(tmp_path) == [], number
    assert number > 10


def test_nothing_is_locked_for_a_device_and_a_missing_folder_is_named(tmp_path):
    with locks.hold("/dev/null") as handle:
        assert handle == -1
    missing = r"^cannot write .*file: there is no folder .*none; make it first"
    with pytest.raises(FileNotFoundError, match=missing), locks.hold(tmp_path / "none" / "file"):
        pass


def test_a_child_ends_with_its_parent(tmp_path):
    """The parent is killed; its child, which would sleep for an hour, ends, and its end of the pipe closes."""
    source = (
        "import functools, os, signal, subprocess, sys; from atomic_writes import ending\n"
        "subprocess.Popen(['sleep', '3600'], preexec_fn=functools.partial(ending.end_with, os.getpid()))\n"
        "print('started', flush=True); signal.pause()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", source], env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout.readline() == b"started\n"
        parent.kill()
        assert parent.stdout.read() == b""


FULL = """
mount -t tmpfs -o size=100k none {folder} && cd {folder} || exit 9
exec {python} -c '
import os
import numpy as np
from atomic_writes import locks, write_atomic
from caffe.atomic_files import write_atomic_hdf5
fill = lambda file: file.create_dataset("x", data=np.ones(50000))
for write, path, content in ((write_atomic, "model", lambda stream: stream.write(bytes(200000))),
                             (write_atomic_hdf5, "model.h5", fill)):
    try:
        write(path, content)
    except OSError as error:
        print(error, error.errno, os.listdir())
'
"""


needs_a_namespace = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="a file system of its own needs the right to unshare",
)


@needs_a_namespace
def test_a_full_disk(tmp_path):
    """In a namespace of its own, on a file system of 100 KB: the file is named, and nothing stays on the disk."""
    script = FULL.format(folder=tmp_path, python=sys.executable)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    reason = f"{os.strerror(errno.ENOSPC)} {errno.ENOSPC} []"
    assert ended.stdout.splitlines() == [f"cannot write {name}: {reason}" for name in ("model", "model.h5")], (
        ended.stderr
    )


def test_a_folder_that_somebody_keeps_as_old_stays(tmp_path):
    for name in ("out", "out.old"):
        (tmp_path / name).mkdir()
    (tmp_path / "out.old" / "kept").touch()
    with replacing_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert (tmp_path / "out.old" / "kept").exists() and (tmp_path / "out" / "new").exists()


SMALL = """
import os, subprocess, sys
from caffe.cli import database
for pages in range(1, 16):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4096 * pages}", "none", sys.argv[1]], check=True)
    child = os.fork()
    if not child:
        try:
            with database.new(f"{sys.argv[1]}/out", "lmdb") as records:
                records.put("key", bytes(3000))
        except OSError as error:
            os._exit(1 if "cannot write " in str(error) else 2)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    subprocess.run(["umount", sys.argv[1]], check=True)
"""


@needs_a_namespace
def test_an_lmdb_on_a_disk_that_is_nearly_full(tmp_path):
    """liblmdb maps lock.mdb and stores in it: in a hole of it, where the disk is full, that was a SIGBUS."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "-m", sys.executable, "-c", SMALL, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    statuses = [int(line) for line in ended.stdout.split()]
    assert len(statuses) == 15 and statuses == sorted(statuses, reverse=True), (statuses, ended.stderr)
    assert {statuses[0], statuses[-1]} == {0, 1}, "refused on the smallest, written on the largest"
