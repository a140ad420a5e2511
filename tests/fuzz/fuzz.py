"""`make fuzz SECONDS=60 SEED=1`: commands read damaged files; a finding is anything but a right answer or one sentence.

It runs in a mount namespace in which only a folder of its own can be written, and refuses to run where it cannot: a
damaged prototxt may name any file as an output. Each input is read by a child with limits of time and memory. A finding
is a traceback, a signal, more than SECONDS_EACH or MEMORY, or a sentence that names neither the file nor a layer.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS_EACH = 10
MEMORY = 1 << 30  # bytes beyond the parent's
INSIDE = "FUZZ_FOLDER"  # set where the namespace is ready
_NUMBERS = [b"-1", b"2147483647", b"65536", b"1e30"]
_PARTS = [b"\xff" * 8, bytes(8), b"\x7f", *_NUMBERS, b'"', b"{", b"}", b"\n", b"\0", b"../"]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy of a file: cut off, bytes changed, parts missing, doubled, or others in their place."""
    data = bytearray(content)
    if rng.random() < 0.2:
        return bytes(data[: rng.randrange(len(data))])
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(max(1, min(len(data), rng.choice([len(data), len(data), 256, 4096]))))
        size = rng.choice([1, 1, 4, 8, 64])
        kind = rng.randrange(5)
        if kind == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size]
        else:
            part = rng.choice(_PARTS)
            data[at : at + (len(part) if kind == 3 else 0)] = part
    return bytes(data)


def answer(command, file: str, log: Path, seconds: int = SECONDS_EACH) -> str:
    """How a child that runs `command` ends: "right", "sentence", or what is wrong."""
    child = os.fork()
    if child == 0:
        out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(seconds)
        status = 99
        try:
            sys.stdout, sys.stderr = (os.fdopen(number, "w", errors="backslashreplace") for number in (1, 2))
            status = command() or 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    text = log.read_text(errors="replace")
    if os.WIFSIGNALED(ended):
        number = os.WTERMSIG(ended)
        return f"over {seconds} s" if number == signal.SIGALRM else signal.Signals(number).name
    if "Traceback (most recent call last)" in text and "(Python, " not in text.splitlines()[-1]:
        return "traceback"
    if os.WEXITSTATUS(ended) == 0:
        return "right"
    names = (file, Path(file).parent.name or file, "layer", "net ", "solver", "Cannot read ")
    return "sentence" if any(name in text for name in names) else "sentence without a name"


def fuzz(folder: Path, seconds: float, seed: int) -> int:
    """Run in the namespace; prints a table, keeps the findings' files in `folder`/findings. Returns how many."""
    os.environ.update(NUMBA_CACHE_DIR=str(folder), MPLCONFIGDIR=str(folder), HOME=str(folder))
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", GLOG_minloglevel="1", GLOG_logtostderr="1")
    import kinds  # which imports torch, once for all children

    good = folder / "good"
    good.mkdir()
    os.chdir(good)
    kinds.make(good)
    for name, kind in kinds.KINDS.items():
        result = answer(kind.command, kind.file, folder / "log", 300)  # what numba compiles stays in its cache
        if result != "right":
            raise SystemExit(f"fuzz: {name}, undamaged: {result}: {(folder / 'log').read_text()[-500:]}")
    counts: dict[str, collections.Counter] = {name: collections.Counter() for name in kinds.KINDS}
    findings, number, until = 0, 0, time.monotonic() + seconds
    while time.monotonic() < until:
        name = list(kinds.KINDS)[number % len(kinds.KINDS)]
        kind, rng = kinds.KINDS[name], random.Random(f"{seed}:{number}")
        work = folder / "work"
        shutil.copytree(good, work)
        os.chdir(work)
        (work / kind.file).write_bytes(mutate((good / kind.file).read_bytes(), rng))
        result = answer(kind.command, kind.file, folder / "log")
        counts[name][result] += 1
        if result not in ("right", "sentence"):
            findings += 1
            kept = folder / "findings" / f"{number:06d}"
            kept.mkdir(parents=True)
            shutil.copy(work / kind.file, kept)
            shutil.copy(folder / "log", kept)
            print(f"{name}, input {number}: {result}; {kept}", flush=True)
        os.chdir(folder)
        shutil.rmtree(work)
        number += 1
    for name, counter in counts.items():
        print(f"{name:24} {', '.join(f'{result}: {count}' for result, count in sorted(counter.items()))}")
    print(f"seed {seed}: {number} inputs, {findings} findings")
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
    options = parser.parse_args(arguments)
    if INSIDE not in os.environ:
        folder = tempfile.mkdtemp(prefix="fuzz-")
        typed = sys.argv[1:] if arguments is None else arguments
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, *typed]
        status = subprocess.run(command, env={**os.environ, INSIDE: folder, "TMPDIR": folder}, check=False).returncode
        if status == 0:  # else the findings are in it
            shutil.rmtree(folder)
        return status
    folder = Path(os.environ[INSIDE])
    enclose(folder)
    os.chdir(folder)  # the bind mount, not what is beneath it
    return min(fuzz(folder, options.seconds, options.seed), 1)


if __name__ == "__main__":
    sys.exit(main())
