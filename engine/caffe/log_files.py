"""Log files as glog writes them: one a run and severity, and a link to the newest of each.

    caffe.host.user.log.INFO.20261128-035819.18387, which caffe.INFO points to

A message goes to the file of its severity and to those of the lower ones. A file is created with its first message.
What goes wrong here is said on stderr and never stops the program. Each line is written at once, so glog's flags that
bound how long lines may wait (logbuflevel, logbufsecs) and stay in memory (drop_log_memory) hold as they are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from types import SimpleNamespace

SEVERITIES = ("INFO", "WARNING", "ERROR")
_HEADER = """Log file created at: {created}
Running on machine: {host}
Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg
"""


def folder(flags: SimpleNamespace) -> str:
    """Where log files go: log_dir, or the first of $TEST_TMPDIR, $TMPDIR, $TMP and /tmp that is a folder."""
    if flags.log_dir:
        return flags.log_dir
    named = (os.environ.get(name) for name in ("TEST_TMPDIR", "TMPDIR", "TMP"))
    return next((path for path in (*named, "/tmp") if path and os.path.isdir(path)), ".")


def _user() -> str:
    if "USER" in os.environ:
        return os.environ["USER"] or "invalid-user"
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # Windows, or a container whose user has no name
        return f"uid{os.getuid()}" if hasattr(os, "getuid") else "invalid-user"


class LogFiles:
    """The files of one program.

    Args:
        program: the files' first word. Empty, as after pycaffe's init_log: the files have no links.
        flags: glog's (log_dir, log_link, logfile_mode, max_log_size, minloglevel, stop_logging_if_full_disk).
    """

    def __init__(self, program: str, flags: SimpleNamespace):
        self._files = [_LogFile(program, severity, flags) for severity in SEVERITIES]
        self._lowest = flags.minloglevel

    def write(self, severity: int, text: str) -> None:
        """Write a line to the files of `severity` (0 info, 1 warning, 2 error) and of those below."""
        try:
            data = text.encode(errors="surrogateescape") + b"\n"
        except UnicodeEncodeError:  # surrogates that stand for no byte
            data = text.encode(errors="backslashreplace") + b"\n"
        if severity >= self._lowest:
            for file in self._files[: severity + 1]:
                file.write(data)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


class _LogFile:
    def __init__(self, program: str, severity: str, flags: SimpleNamespace):
        self._program, self._severity, self._flags = program, severity, flags
        self._descriptor: int | None = None
        self._process = self._size = 0
        self._stopped = False

    def write(self, data: bytes) -> None:
        if self._descriptor is not None and self._is_finished():
            self.close()
        if self._descriptor is None and not self._stopped:
            self._create()
        if self._descriptor is None:
            return
        try:
            self._size += os.write(self._descriptor, data)
        except OSError as error:
            if error.errno == errno.ENOSPC and self._flags.stop_logging_if_full_disk:
                self.close()
                self._stopped = True

    def _is_finished(self) -> bool:
        """Whether the next line begins a new file: this one is full, or belongs to the process forked from."""
        return self._size >> 20 >= max(self._flags.max_log_size, 1) or self._process != os.getpid()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _create(self) -> None:
        now, self._process, self._size = time.localtime(), os.getpid(), 0
        host, stamp = platform.node() or "(unknown)", f"{time.strftime('%Y%m%d-%H%M%S', now)}.{self._process}"
        name = f"{self._program}.{host}.{_user()}.log.{self._severity}.{stamp}"
        path = os.path.join(folder(self._flags), name)
        # appended to where one process writes two logs within a second; another user's link is not followed
        mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._descriptor = os.open(path, mode, self._flags.logfile_mode)
            header = _HEADER.format(created=time.strftime("%Y/%m/%d %H:%M:%S", now), host=host)
            self._size = os.write(self._descriptor, header.encode())
        except OSError as error:
            print(f"Could not create logging file: {error.strerror}", file=sys.stderr)
            print(f"COULD NOT CREATE A LOGGINGFILE {path}!", file=sys.stderr)
            self.close()
            self._stopped = True
            return
        if self._program:
            self._link(os.path.dirname(path), name)
            if self._flags.log_link:
                self._link(self._flags.log_link, path)

    def _link(self, place: str, target: str) -> None:
        """Let PROGRAM.SEVERITY in the folder `place` point to `target`. What is no link of ours to replace stays."""
        link = os.path.join(place, f"{self._program}.{self._severity}")
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
            os.symlink(target, link)
