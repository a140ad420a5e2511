"""`make fuzz SECONDS=60 SEED=1`: commands read damaged files; a finding is anything but a right answer or one sentence.

It runs in a mount namespace in which only a folder of its own can be written, and refuses to run where it cannot: a
damaged prototxt may name any file as an output. It has no network. Each input is read by a child with limits of time
and memory. A finding is a traceback, a signal, more than SECONDS_EACH of a processor or MEMORY, a sentence that names
neither the file nor a layer, another answer the second time, or a file with a checksum that is read as other data.
All kinds of input get the same time. A net or solver that computes as long as its prototxt says is no finding.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mutations
import shortage

SECONDS_EACH = 10  # of a processor: the machine may be busy with other things
WAITS = 30  # times as long by the clock, for what waits and never ends: on a busy machine 60 s were not enough
SECONDS_FIRST = 300  # for an undamaged file, which is read first
MEMORY = 1 << 30  # bytes beyond the parent's
END = 128  # bytes in which an archive's directory ends
TWICE = 0.2  # the share of inputs with an answer that are read again
INSIDE = "FUZZ_FOLDER"  # set where the namespace is ready
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MALLOC_ARENA_MAX": "2",
    "GLOG_logtostderr": "1", "GLOG_log_prefix": "0", "COLUMNS": "2000", "NO_COLOR": "1",
}  # fmt: skip
_UNLIKE = re.compile(r"\.(html|h5|mdb)$|lock")  # files with times, process numbers or unused bytes in them
# in faulthandler's stack: what takes as long as it was told to
_COMPUTES = re.compile(
    r"(, line \d+ in (forward|backward|compute|step|test|time)|/extract_features.py\", line \d+ in \w+)$", re.MULTILINE
)
# of a Python layer's own error; the layers of this project mean only others
MISTAKE = re.compile(r"\): (Assertion|Attribute|Index|Key|Name|Type|UnboundLocal|ZeroDivision)Error: ")
_TIMES = re.compile(
    r"\d+(\.\d+)? (s|ms)\b|\d+:\d+:\d+|[\d.,]+ (iter|images)/s|[\d.]+s/\d+ iters|process \d+|W0000 .*\]"
    # by threads that read ahead
    r"|(Restarting data prefetching|libpng (warning|error):|\[ *(ERROR|WARN):\d+@).*\n"
    r"|(Corrupt JPEG data|Premature end of JPEG|Invalid SOS param|Inconsistent progression|Unknown Adobe color"
    r"|Warning: unknown JFIF).*\n"
)


def answer(command, names: tuple[str, ...], log: Path, seconds: int, memory: int = MEMORY) -> str:
    """How a child that runs `command` ends: "right", "sentence", "long" or what is wrong.

    seconds: of a processor. memory: bytes beyond this process's.

    Long: a net or a solver still computes what a file told it to, `iter_size: 2147483647` say.
    """
    child = os.fork()
    if child == 0:
        _run(command, log, seconds, memory)
    _, ended = os.waitpid(child, 0)
    text = log.read_text(errors="replace")
    if os.WIFSIGNALED(ended):
        number = os.WTERMSIG(ended)
        if number == signal.SIGXCPU and _COMPUTES.search(text):
            return "long"
        slow = {signal.SIGALRM: f"over {WAITS * seconds} s", signal.SIGXCPU: f"over {seconds} s of a processor"}
        return slow.get(signal.Signals(number), signal.Signals(number).name)
    lines = [line for line in text.split("\n") if line.strip()] or [""]
    if "Traceback (most recent call last)" in text and ("(Python, " not in lines[-1] or MISTAKE.search(lines[-1])):
        return "traceback"
    if os.WEXITSTATUS(ended) == 0:
        return "right"
    last = " ".join(lines[-3:])  # an error of a parser shows the line below it
    return "sentence" if any(name in last for name in names) else "sentence without a name"


def _run(command, log: Path, seconds: int, memory: int) -> None:
    """Run `command` in this child, which ends."""
    import forked  # which fuzz() has imported

    out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(out, 1)
    os.dup2(out, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + memory, size + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
    resource.setrlimit(resource.RLIMIT_CPU, (used + seconds, used + 2 * seconds))
    faulthandler.register(signal.SIGXCPU, file=2, chain=True)
    signal.alarm(WAITS * seconds)

    def call() -> int | None:
        sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
        return command()

    forked.finish(call, failed=99)


class Reader:
    """Has the kinds' commands read files in copies of the folders of good ones, below `folder`."""

    def __init__(self, folder: Path, kinds: dict):
        self.folder, self.kinds = folder, kinds
        self.ends = {path.read_bytes()[-END:] for path in folder.glob("good/**/*") if path.is_file()}

    def read(self, name: str, content: bytes | None, memory: int = MEMORY) -> tuple[str, str]:
        """What becomes of a kind's file with another content (None: undamaged); and a digest of the answer."""
        kind = self.kinds[name]
        part, _, file = kind.file.partition("/")
        work, log = self.folder / "work" / part, self.folder / "log"
        shutil.copytree(self.folder / "good" / part, work)
        os.chdir(work)
        if content is not None:
            status = (work / file).stat()
            (work / file).write_bytes(content)
            os.utime(work / file, ns=(status.st_atime_ns, status.st_mtime_ns))
        before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
        parent = str(Path(file).parent)
        names = (file, Path(file).name, *([parent] if parent != "." else []), *kind.names)
        result = answer(kind.command, names, log, SECONDS_FIRST if content is None else SECONDS_EACH, memory)
        digest = hashlib.sha256(_TIMES.sub("", log.read_text(errors="replace")).encode())
        for path in sorted(work.rglob("*")):
            if path.is_file() and before.get(path) != path.stat().st_mtime_ns and not _UNLIKE.search(path.name):
                digest.update(os.fsencode(path.name) + path.read_bytes())
        os.chdir(self.folder)
        shutil.rmtree(work)
        return result, digest.hexdigest()

    def judge(self, name: str, content: bytes, expected: str, twice: bool) -> str:
        """As `read`, and whether a file with a checksum gives the expected answer, or, `twice`, any the same again."""
        kind = self.kinds[name]
        result, digest = self.read(name, content)
        if result == "right" and kind.exact and digest != expected:
            own = (self.folder / "good" / kind.file).read_bytes()[-END:]
            if content[-END:] not in self.ends - {own}:  # of another good archive: those are its data
                return "other data"
        if result == "right" and kind.repeats and twice and self.read(name, content)[1] != digest:
            return "another answer the second time"
        return result


def fuzz(folder: Path, seconds: float, seed: int, only: str = "", each: bool = False, short: bool = False) -> int:
    """Run in the namespace; prints a table, keeps the findings' files in `folder`/findings. Returns how many.

    each: each kind's file in the place of each other one, then each value and word of the text files changed by itself,
    until the time is over or all were. short: undamaged files where memory or the disk is short.
    """
    os.environ.update(ENVIRONMENT, MPLCONFIGDIR=str(folder), HOME=str(folder))
    tests = Path(__file__).parents[1]
    sys.path[:0] = [str(tests / "support"), str(tests / "tools" / "support")]
    import forked  # noqa: F401
    import good_files  # which import torch, once for all children
    import kinds
    import published

    if not (folder / "good").exists():
        (folder / "good").mkdir()
        good_files.make(folder / "good")
        published.make(folder / "good")
    every = {**kinds.KINDS, **published.KINDS}
    chosen = {name: kind for name, kind in every.items() if only in name}
    reader = Reader(folder, chosen)
    expected: dict[str, str] = {}  # the digest of the undamaged file's answer
    contents = {name: (folder / "good" / kind.file).read_bytes() for name, kind in every.items()}
    if each:  # good files too
        exact = [name for name, kind in chosen.items() if kind.exact]
        reader.ends |= {new[-END:] for name in exact for new in mutations.whole(contents[name])}
    counts = {name: collections.Counter() for name in chosen}
    spent = dict.fromkeys(chosen, 0.0)
    edits = mutations.each_value if each else mutations.none if short else mutations.drawn
    damaged = {name: edits(contents[name], f"{seed}:{name}", list(contents.values())) for name in chosen}
    findings, until = 0, time.monotonic() + seconds
    while damaged and (start := time.monotonic()) < until:
        name = min(damaged, key=lambda kind: spent[kind])
        content = next(damaged[name], None)
        if content is None:  # all were read
            del damaged[name]
            continue
        if name not in expected:
            result, expected[name] = reader.read(name, None)
            if result != "right":
                raise SystemExit(f"fuzz: {name}, undamaged: {result}: {(folder / 'log').read_text()[-500:]}")
        rng = random.Random(f"{seed}:{name}:{counts[name].total()}")
        if short:
            result = shortage.judge(reader, name, expected[name], rng)
        else:
            result = reader.judge(name, content, expected[name], twice=rng.random() < TWICE)
        counts[name][result] += 1
        if result not in ("right", "sentence", "long"):
            findings += 1
            kept = folder / "findings" / f"{findings:04d}"
            kept.mkdir(parents=True)
            (kept / Path(chosen[name].file).name).write_bytes(content)
            shutil.copy(folder / "log", kept / "output")
            print(f"{name}, input {counts[name].total() - 1}: {result}; {kept}", flush=True)
        spent[name] += time.monotonic() - start
    for name, counter in counts.items():
        print(f"{name:28} {', '.join(f'{result}: {count}' for result, count in sorted(counter.items()))}")
    print(f"seed {seed}: {sum(counter.total() for counter in counts.values())} inputs, {findings} findings")
    return findings


def enclose(folder: Path) -> None:
    """Make all file systems of this mount namespace read-only but `folder`; raise SystemExit where that fails."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in sorted(set(mounts), key=len):
        place = point.encode().decode("unicode_escape")
        if place != str(folder):
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=False, capture_output=True)
    for outside in ("/", "/dev", "/tmp", str(Path(__file__).parent)):
        with contextlib.suppress(OSError):
            os.close(os.open(f"{outside}/fuzz-probe", os.O_CREAT | os.O_WRONLY))
            os.unlink(f"{outside}/fuzz-probe")
            raise SystemExit(f"fuzz: {outside} can still be written; refused")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 where there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="only kinds with this in their name")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--each", action="store_true", help="each file as each kind, each value and word of texts")
    mode.add_argument("--short", action="store_true", help="undamaged files where memory or the disk is short")
    options = parser.parse_args(arguments)
    if INSIDE not in os.environ:
        folder = tempfile.mkdtemp(prefix="fuzz-")
        typed = sys.argv[1:] if arguments is None else arguments
        command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, __file__, *typed]
        environment = {**os.environ, **ENVIRONMENT, INSIDE: folder, "TMPDIR": folder}
        status = subprocess.run(command, env=environment, check=False).returncode
        if status == 0:  # else the findings are in it
            shutil.rmtree(folder)
        return status
    folder = Path(os.environ[INSIDE])
    enclose(folder)
    os.chdir(folder)  # the bind mount, not what is beneath it
    return min(fuzz(folder, options.seconds, options.seed, options.only, options.each, options.short), 1)


if __name__ == "__main__":
    sys.exit(main())
