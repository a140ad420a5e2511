"""`make soak SECONDS=3600`: a training and a search server run that long; a finding is what they hold and never return.

The training: `caffe train` of 3,000 iterations, again and again in one process, DHN's losses over an LMDB, a test every
500 iterations and a snapshot every 1,000. The server: `tools/serve.py` with clients that search by key and by picture,
look at pages and pictures, send what is refused, while items are appended to the index and deleted. Every two seconds
their memory (anonymous pages; those of mapped files come and go), threads and open files are read from /proc. Ends with
status 1 where one of them grew, failed, or did nothing.

Memory has grown where its median over the last quarter of the time is more than GROWTH above that over the second one:
the first warms up. Writes build/soak/: soak.csv (a row a sample) and soak.json.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SEARCHED = ("engine", "python_layers", "tools", "prototxt", "tests/conformance", "tests/gpu", "tests/tools/support")
if __name__ == "__main__":
    os.environ["GLOG_minloglevel"] = "2"  # noqa: SIM112 (glog spells it so)
    sys.path[:0] = [str(ROOT / name) for name in SEARCHED]

GROWTH = 16 << 20  # bytes; an allocator's own ups and downs are below it
INTERVAL = 2.0  # seconds between samples
CLIENTS = 4
IMAGES = 600
ITERATIONS = 3000
TOOL = str(ROOT / "tools" / "serve.py")
SOLVER = """net: "{net}" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: {iterations} display: 1000
test_iter: 2 test_interval: 500 snapshot: 1000 snapshot_prefix: "{folder}/soak" solver_mode: CPU random_seed: 1
"""


class Sample(NamedTuple):
    """What a process holds at a moment: seconds since the start, bytes of memory, threads, open files."""

    seconds: float
    memory: int
    threads: int
    files: int


def sample(process: int, seconds: float) -> Sample:
    """Raises OSError where the process has ended."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in line
    )
    if "RssAnon" not in status:
        raise ProcessLookupError(f"process {process} has ended")
    memory = int(status["RssAnon"].split()[0]) * 1024
    return Sample(seconds, memory, int(status["Threads"]), len(os.listdir(f"/proc/{process}/fd")))


def findings(name: str, samples: list[Sample]) -> list[str]:
    """What grew from the second quarter to the last, in a sentence each: medians of memory, most threads and files."""
    if len(samples) < 8:
        return [f"{name}: {len(samples)} samples; expected at least 8, a longer time"]
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    sentences = []
    before, after = (statistics.median(one.memory for one in part) for part in (early, late))
    if after - before > GROWTH:
        sentences.append(f"{name}: memory grew from {before / 1e6:.0f} to {after / 1e6:.0f} MB")
    for what in ("threads", "files"):
        least, most = (max(getattr(one, what) for one in part) for part in (early, late))
        if most > least + 2:  # a request or a snapshot that one part of the samples met and the other did not
            sentences.append(f"{name}: {what} grew from {least} to {most}")
    return sentences


def train(folder: Path) -> int:
    """`caffe train` again and again, a line with the number of the training after each."""
    import check_dhn
    import fixtures
    from caffe.cli.main import main

    fixtures.write_lmdb(str(folder / "train_lmdb"), check_dhn.images(check_dhn.TRAIN, 1))
    (folder / "net.prototxt").write_text(check_dhn.net_text(str(folder / "train_lmdb"), "true", check_dhn.LOSSES))
    solver = folder / "solver.prototxt"
    solver.write_text(SOLVER.format(net=folder / "net.prototxt", folder=folder, iterations=ITERATIONS))
    for number in itertools.count(1):
        if status := main(["train", "-solver", str(solver)]):
            return int(status)
        print(f"trainings: {number}", flush=True)
    return 0


class Load:
    """Clients of the server in threads of this process, and what they were answered: `statuses` counts them."""

    def __init__(self, port: int, index: Path) -> None:
        import search_server

        self.server = search_server.Server(port, None)
        self.index = index
        self.statuses: dict[int, int] = {}
        self.changes = 0
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        self._threads.append(threading.Thread(target=self._change))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        import search_server

        draw, server = random.Random(number), self.server
        while not self._ended.is_set():
            item = draw.randrange(IMAGES)
            picture = search_server.encoded(search_server.pixels(item), draw.choice([".png", ".jpg"]))
            key = f"{search_server.NAMES[item % 3]}%2F{item}.png"
            requests: list[Callable[[], search_server.Answer]] = [
                partial(server.get, f"/api/search?key={key}&top={draw.randrange(1, 100)}"),
                partial(server.upload, picture),
                partial(server.upload, picture[: len(picture) // 2]),  # refused
                partial(server.get, f"/api/items/{key}/image"),
                partial(server.get, "/"),
                partial(server.get, "/api/search?key=none"),  # refused
            ]
            try:
                status = draw.choice(requests)().status
            except OSError as error:
                status = 0
                self._note(f"the server did not answer: {error}")
            if status >= 500:
                self._note(f"the server answered {status}")
            with self._lock:
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def _note(self, problem: str) -> None:
        if not self._ended.is_set() and problem not in self.problems:
            self.problems.append(problem)

    def _change(self) -> None:
        """Append ten items, delete them, every ten seconds."""
        import numpy as np
        from dhn.search import build
        from dhn.search.index import open_index
        from dhn.search.items import Items

        index = open_index(self.index)
        keys = [f"new/{number}" for number in range(10)]
        items = Items(index.codes_of(np.arange(10)), np.asarray(index.labels[:10]), keys, None)
        try:
            while not self._ended.wait(5):
                build.append(self.index, items)
                self._ended.wait(5)
                build.delete(self.index, keys)
                self.changes += 1
        except (ValueError, OSError) as error:
            self._note(f"the index could not be changed: {error}")


@contextlib.contextmanager
def started(folder: Path, part: str, *arguments: str) -> Iterator[tuple[subprocess.Popen, Path]]:
    """(the process of a part, the file of its output)."""
    from atomic_writes import ending  # which SEARCHED finds

    output = folder / f"{part}.log"
    searched = os.pathsep.join(str(ROOT / name) for name in SEARCHED)
    environment = {**os.environ, "PYTHONPATH": searched}
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment, stdout=stream, stderr=stream,
            preexec_fn=partial(ending.end_with, os.getpid(), signal.SIGTERM),
        )  # fmt: skip
    try:
        yield process, output
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def address(process: subprocess.Popen, output: Path) -> int:
    """The port that the server says it listens at. Raises RuntimeError where it ends first."""
    while process.poll() is None:
        if "http://127.0.0.1:" in (text := output.read_text()):
            return int(text.split("http://127.0.0.1:")[1].split("/")[0])
        time.sleep(0.2)
    raise RuntimeError(f"the server ended with status {process.returncode}:\n{output.read_text()}")


def soak(seconds: float, folder: Path) -> tuple[dict, list[str]]:
    """(what was done and measured, the findings) of both parts running that long; writes soak.csv into the folder."""
    import search_server

    index = search_server.write_index(folder / "served", IMAGES)
    commands = {"training": (__file__, "--train", str(folder)), "server": (TOOL, str(index), "--port", "0")}
    samples: dict[str, list[Sample]] = {part: [] for part in commands}
    with contextlib.ExitStack() as stack:
        parts = {part: stack.enter_context(started(folder, part, *command)) for part, command in commands.items()}
        load = Load(address(*parts["server"]), index)
        begin = time.monotonic()
        try:
            with (folder / "soak.csv").open("w", newline="") as stream:
                rows = csv.writer(stream)
                rows.writerow(["part", *Sample._fields])
                while (now := time.monotonic() - begin) < seconds:
                    for part, (process, _) in parts.items():
                        with contextlib.suppress(OSError):
                            samples[part].append(sample(process.pid, round(now, 1)))
                            rows.writerow([part, *samples[part][-1]])
                    time.sleep(INTERVAL)
        finally:
            load.end()
        found = [sentence for part in samples for sentence in findings(part, samples[part])] + load.problems
        for part, (process, output) in parts.items():
            if process.poll() is not None:
                found.append(f"{part}: ended with status {process.returncode}; see {output}")
        trainings = parts["training"][1].read_text().count("trainings:")
    if not trainings:
        found.append(f"training: not one of {ITERATIONS} iterations was finished; see {parts['training'][1]}")
    if not load.changes:
        found.append("server: its index was not changed once")
    if not load.statuses.get(200):
        found.append(f"server: no request was answered; see {parts['server'][1]}")
    about = {part: described(of) for part, of in samples.items() if len(of) >= 8}
    done = {
        "trainings": trainings,
        "changes": load.changes,
        "requests": {str(key): load.statuses[key] for key in sorted(load.statuses)},
    }
    return {"seconds": seconds, **done, **about}, found


def described(samples: list[Sample]) -> dict:
    """Memory in MB (median of each quarter of the time), most threads and files."""
    quarter = len(samples) // 4
    parts = [samples[at * quarter : (at + 1) * quarter] for at in range(4)]
    memory = [round(statistics.median(one.memory for one in part) / 1e6, 1) for part in parts]
    return {
        "memory": memory,
        "threads": max(one.threads for one in samples),
        "files": max(one.files for one in samples),
    }


def main() -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="how long; default 3600")
    parser.add_argument(
        "--train", type=Path, metavar="FOLDER", help=argparse.SUPPRESS
    )  # the part that is a process of its own
    options = parser.parse_args()
    if options.train:
        return train(options.train)
    folder = ROOT / "build" / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    about, found = soak(options.seconds, folder)
    (folder / "soak.json").write_text(json.dumps({**about, "findings": found}, indent=1) + "\n")
    print(json.dumps(about, indent=1))
    for sentence in found:
        print(f"finding: {sentence}", file=sys.stderr)
    print(f"{len(found)} findings; wrote {(folder / 'soak.csv').relative_to(ROOT)} and soak.json")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
