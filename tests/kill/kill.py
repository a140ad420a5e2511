"""`make kill-test`: every command that writes is killed at 40 instants, and told to end at some more.

After each of them: what it was to write is as before, not there, or complete; the same command typed again succeeds and
gives the same bytes, or numbers; nothing is left over, no temporary file, no child process, no lock. A signal gives one
line and the status 130, 143 or 129.

It runs in a mount namespace in which only a folder of its own can be written. The commands run in children forked from
this process, which has imported all of them and computed nothing, and so do the processes that they start: a new Python
would import for seconds each time. Half of the instants are spread over the time that a command takes; the others come
just before it opens, renames, removes, makes or synchronizes a file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
INSIDE, READY = "KILL_FOLDER", "KILL_READY"  # set in the namespace: the folder; and once it is ready
NAMES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
SECONDS = 300  # that a command may take at most, on a busy machine


class Tester:
    """Kills the commands in the folder that the process works in, which is the copy of the project."""

    def __init__(self, log: Path) -> None:
        import commands
        import forking
        import states

        self.commands, self.forking, self.states, self.log = commands.COMMANDS, forking, states, log
        self.findings: list[str] = []
        self.counts: dict[str, collections.Counter] = {}
        set_child_subreaper = 36
        ctypes.CDLL(None).prctl(set_child_subreaper, 1)  # what a killed command leaves becomes our child

    def run(self, words: str, main, event: int = 0) -> tuple[int, float]:
        """The status of a command that is left alone, and the seconds that it takes; -9 where `event` kills it."""
        start = time.monotonic()
        child = self.forking.start(main, words.split(), self.log, event)
        status = self.forking.wait(child, start + SECONDS)
        return status, time.monotonic() - start

    def once(self, name: str, how: str, base: Path, new: dict, act) -> None:
        """Interrupt the command once by act() -> status, then type it again, and note what is wrong."""
        command = self.commands[name]
        self.states.restore(base)
        old = self.states.contents(self.log)
        status = act()
        said = self.log.read_text(errors="replace")
        problems = self.left_processes()
        between = self.states.contents(self.log)
        # ^C has caffe write a snapshot where the training stands, which stays: the next run goes on from it
        more = between.keys() - new.keys() - old.keys() if how == "SIGINT" else set()
        stops = {path for path in more if self.states.is_snapshot(path)}
        between = {path: content for path, content in between.items() if path not in stops}
        problems += self.states.halves(between, old, new, status >= 0)
        if how != "SIGKILL":
            number = NAMES[signal.Signals[how]]
            undone = self.states.differences(between, new)
            if status == 128 - number and not (undone and self.states.differences(between, old)):
                status = 0  # Python was starting or about to exit: nothing was done yet, or all
            if status != 0 and (status != number or not said.endswith(f": ended by {how}\n") or "Traceback" in said):
                problems.append(f"status {status}, expected {number} and one line; {undone}; ends with {said[-500:]!r}")
            problems += [f"left over: {path}" for path in self.states.temporary()]
        self.counts[name][how if status != 0 else "outside"] += 1
        status, _ = self.run(command.words, command.main)
        said = self.log.read_text(errors="replace")
        done = not self.states.differences(between, new)
        after = {path: content for path, content in self.states.contents(self.log).items() if path not in stops}
        if status != 0 and not (done and command.again and command.again in said):
            problems.append(f"typed again: status {status}: {said[-500:]!r}")
        problems += self.left_processes()
        problems += [f"typed again: {problem}" for problem in self.states.differences(after, new)]
        problems += [f"typed again, left over: {path}" for path in self.states.temporary()]
        for problem in problems:
            self.findings.append(f"{name}, {how}: {problem}")
            print(f"FINDING {self.findings[-1]}", flush=True)

    def left_processes(self) -> list[str]:
        """Children that are there a moment after a command has ended; they are ended."""
        left = []
        until = time.monotonic() + 10
        while True:
            pids = self.forking.children()
            if not pids:
                return left
            if time.monotonic() > until:
                for pid in pids:
                    left.append(f"left a process: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
                    os.kill(pid, signal.SIGKILL)
                until += 10
            time.sleep(0.01)

    def test(self, name: str, kills: int, signals: int, rng: random.Random) -> None:
        """Kill one command: from nothing, and, where it replaces one, over an older output."""
        command = self.commands[name]
        self.counts[name] = collections.Counter()
        old = None if command.old is None else partial(self.run, command.old, command.main)
        folder = self.log.parent / "bases" / name
        starts = []
        bases = self.states.prepare(folder, self.log, command.prepare, old and (lambda: old()[0]))
        self.states.restore(bases[0])
        self.run(command.words, command.main)
        self.forking.warm()
        for base in bases:
            self.states.restore(base)
            status, seconds = self.run(command.words, command.main)
            if status != 0:
                raise SystemExit(f"kill-test: {name}: {status}: {self.log.read_text(errors='replace')[-2000:]}")
            starts.append((base, seconds, self.forking.events(), self.states.contents(self.log)))
        for number in range(kills):
            share = (number + rng.random()) / kills
            base, seconds, events, new = starts[number // 2 % len(starts)]
            if number % 2:
                act = partial(self.killed_at, command, 1 + int(share * events))
            else:
                act = partial(self.send, command, signal.SIGKILL, share * seconds)
            self.once(name, "SIGKILL", base, new, act)
        for number in range(signals):
            base, seconds, _, new = starts[number % len(starts)]
            for sent in NAMES if not command.stops else [signal.SIGTERM]:
                share = (number + rng.random()) / signals
                self.once(name, sent.name, base, new, partial(self.send, command, sent, share * seconds))
        shutil.rmtree(folder)

    def killed_at(self, command, event: int) -> int:
        """Run a command that is killed at an event."""
        return self.run(command.words, command.main, event)[0]

    def send(self, command, number: int, after: float) -> int:
        """Start a command, send it a signal, and return how it ends. SIGINT and SIGHUP reach all of its processes, as
        from a terminal."""
        child = self.forking.start(command.main, command.words.split(), self.log)
        time.sleep(after)
        with contextlib.suppress(ProcessLookupError):  # it has ended
            (os.kill if number in (signal.SIGKILL, signal.SIGTERM) else os.killpg)(child, number)
        return self.forking.wait(child, time.monotonic() + SECONDS)


def enter(folder: Path, words: list[str]) -> NoReturn:
    """In the namespace: make `folder` all that can be written, in memory, copy the project there, and begin again."""
    import fuzz
    import project_copy

    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "none", str(folder)], check=True)
    fuzz.enclose(folder)
    os.chdir(folder)  # the mount, not what is beneath it
    project_copy.make(folder / "project", PROJECT)
    path = [str(folder / "project" / name) for name in project_copy.FOLDERS]
    environment = {
        **os.environ, READY: "1", "TMPDIR": str(folder), "HOME": str(folder), "PYTHONPATH": os.pathsep.join(path),
        "MPLCONFIGDIR": str(folder), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive", "GLOG_logtostderr": "1",
    }  # fmt: skip
    os.execve(sys.executable, [sys.executable, __file__, *words], environment)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 where there are findings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=40, help="instants at which each command is killed")
    parser.add_argument("--signals", type=int, default=3, help="instants at which each gets SIGINT, SIGTERM, SIGHUP")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these commands alone")
    options = parser.parse_args(arguments)
    sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("fuzz", "support", "tools/support"))]
    typed = sys.argv[1:] if arguments is None else arguments
    if INSIDE not in os.environ:
        with tempfile.TemporaryDirectory(prefix="kill-") as folder:
            command = ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, __file__, *typed]
            return subprocess.run(command, env={**os.environ, INSIDE: folder}, check=False).returncode
    folder = Path(os.environ[INSIDE])
    if READY not in os.environ:
        enter(folder, typed)
    os.chdir(folder / "project")
    import commands

    tester = Tester(folder / "log")
    for name in commands.COMMANDS:
        if not options.only or name in options.only:
            began = time.monotonic()
            tester.test(name, options.kills, options.signals, random.Random(f"{options.seed}:{name}"))
            counts = ", ".join(f"{how}: {count}" for how, count in sorted(tester.counts[name].items()))
            print(f"{name:24} {counts} ({time.monotonic() - began:.0f} s)", flush=True)
    total = sum(counter.total() for counter in tester.counts.values())
    print(
        f"seed {options.seed}: {total} interruptions of {len(tester.counts)} commands, {len(tester.findings)} findings"
    )
    return min(len(tester.findings), 1)


if __name__ == "__main__":
    sys.exit(main())
