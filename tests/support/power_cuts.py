"""A power cut at every system call: what may be on the disk then.

`record` runs a command under strace. `Disk` replays what it did to the files of a folder, and `Disk.cuts` gives what
may be in the folder after a power cut at each point: what was synchronized, and of the rest all, nothing or a part.

The model is the weakest that POSIX allows. A file's bytes are safe after its own fsync or fdatasync. An entry of a
folder (a name made, renamed, exchanged, removed) is safe after the folder's fsync. Until then each may be there or not,
in any order; the two entries of a rename go together.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,rename,renameat,renameat2,link,"
    "linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,fallocate,copy_file_range,sendfile,"
    "lseek,dup,dup2,dup3,mmap"
)
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_CHANGED = ("lock.mdb",)  # written through a shared mapping, and not for good
RANDOM = 4  # of the states after each step


@dataclass
class Node:
    """A file with its bytes, or a folder with its entries, as they were before the command."""

    data: bytes | None = None
    entries: dict[str, int] = field(default_factory=dict)


@dataclass
class Step:
    """A change: bytes of a file at an offset (None: it is truncated there), or entries of folders; or what was
    synchronized. Files and folders are numbers of nodes."""

    written: tuple[int, int, bytes | None] | None = None
    entries: tuple[tuple[int, str, int | None], ...] = ()
    synchronized: int | None = None
    safe_at: float = float("inf")  # the step that synchronized it


def record(command: Sequence[str], folder: Path, log: Path, environment: dict[str, str]) -> list[str]:
    """The system calls of a command, which must succeed, as strace writes them: calls that were interrupted by those of
    another thread in one line."""
    words = ["strace", "-f", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", f"trace={CALLS}", "-o", str(log)]
    subprocess.run([*words, *command], cwd=folder, env=environment, check=True, capture_output=True)
    begun: dict[str, str] = {}
    lines = []
    for line in log.read_text().split("\n"):
        pid = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>").rstrip()
        elif " resumed>" in line:
            lines.append(begun.pop(pid) + line.split(" resumed>", 1)[1])
        else:
            lines.append(line)
    return lines


class Disk:
    """The files of a folder, and what a command does to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.nodes: list[Node] = []
        self.root = self._load(self.folder)
        self.names = {number: dict(node.entries) for number, node in enumerate(self.nodes)}  # as they are now
        self.steps: list[Step] = []
        self._open: dict[int, list[int]] = {}  # descriptor -> node, position
        self._appended: set[int] = set()  # descriptors

    def _load(self, path: Path) -> int:
        self.nodes.append(Node())
        number = len(self.nodes) - 1
        if path.is_dir():
            self.nodes[number].entries = {each.name: self._load(each) for each in path.iterdir()}
        else:
            self.nodes[number].data = path.read_bytes()
        return number

    def replay(self, lines: Sequence[str]) -> None:
        """Follow the system calls that `record` gives. Raises ValueError for one that this module does not model."""
        for line in lines:
            match = _LINE.match(line)
            if match and not match[4].startswith("-"):
                self._call(match[2], match[3], int(match[4], 0))
        last: dict[int, int] = {}
        for at in range(len(self.steps) - 1, -1, -1):
            step = self.steps[at]
            if step.synchronized is not None:
                last[step.synchronized] = at
            elif step.written is not None:
                step.safe_at = last.get(step.written[0], float("inf"))
            else:
                step.safe_at = max(last.get(folder, float("inf")) for folder, _, _ in step.entries)

    def _call(self, name: str, text: str, result: int) -> None:
        strings = [bytes.fromhex(each.replace("\\x", "")) for each in _STRING.findall(text)]
        bases = re.findall(r'(?:^|, )(AT_FDCWD|\d+), "', text)
        first = re.match(r"\d+", text)
        descriptor = int(first[0]) if first else -1
        if name in ("open", "openat", "creat"):
            self._opened(self._place(strings, bases), text if name != "creat" else "O_CREAT|O_TRUNC", result)
        elif name == "mmap":
            mapped = re.search(r", (\d+), (?:0|0x[0-9a-f]+)$", text)
            if mapped and int(mapped[1]) in self._open and "MAP_SHARED" in text and "PROT_WRITE" in text:
                number = self._open[int(mapped[1])][0]
                if not any(self.names[folder].get(each) == number for folder in self.names for each in _CHANGED):
                    raise ValueError(f"a file is written through a mapping: {text}")
        elif name in ("dup", "dup2", "dup3"):
            if descriptor in self._open:
                self._open[result] = self._open[descriptor]
        elif name in ("rename", "renameat", "renameat2"):
            self._renamed(self._place(strings, bases), self._place(strings, bases, 1), "RENAME_EXCHANGE" in text)
        elif name in ("unlink", "unlinkat", "rmdir"):
            self._change((*self._place(strings, bases), None))
        elif name in ("mkdir", "mkdirat"):
            place = self._place(strings, bases)
            if place[0] >= 0:
                self._change((*place, self._new(Node())))
        elif first and descriptor in self._open:
            self._on_open(name, text, descriptor, b"".join(strings)[:result], result)
        elif name in ("link", "linkat", "symlink", "symlinkat", "truncate") and self._place(strings, bases, -1)[0] >= 0:
            raise ValueError(f"{name} is not modelled: {text[:200]}")

    def _on_open(self, name: str, text: str, descriptor: int, data: bytes, result: int) -> None:
        """A call on the descriptor of a file or folder of ours."""
        number, at = self._open[descriptor]
        if name == "close":
            del self._open[descriptor]
        elif name == "lseek":
            self._open[descriptor][1] = result
        elif name in ("fsync", "fdatasync"):
            self.steps.append(Step(synchronized=number))
        elif name == "ftruncate":
            self.steps.append(Step(written=(number, int(text.split(",")[1]), None)))
        elif name in ("pwrite64", "pwritev", "pwritev2"):
            offset = re.search(r", (\d+)$" if name != "pwritev2" else r", (\d+), \w+$", text)
            assert offset, text[-100:]
            self.steps.append(Step(written=(number, int(offset[1]), data)))
        elif name in ("write", "writev"):
            if descriptor in self._appended:
                raise ValueError(f"appending is not modelled: {text[:200]}")
            self.steps.append(Step(written=(number, at, data)))
            self._open[descriptor][1] = at + len(data)
        else:
            raise ValueError(f"{name} is not modelled: {text[:200]}")

    def _opened(self, place: tuple[int, str], flags: str, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        self._appended.discard(descriptor)
        folder, name = place
        if folder < 0:
            return
        number = folder if not name else self.names[folder].get(name)
        if number is None:
            number = self._new(Node(b""))
            self._change((folder, name, number))
        elif "O_TRUNC" in flags:
            self.steps.append(Step(written=(number, 0, None)))
        self._open[descriptor] = [number, 0]
        if "O_APPEND" in flags:
            self._appended.add(descriptor)

    def _renamed(self, source: tuple[int, str], target: tuple[int, str], exchange: bool) -> None:
        if source[0] < 0 and target[0] < 0:
            return
        moved, other = self.names[source[0]][source[1]], self.names[target[0]].get(target[1])
        self._change((*source, other if exchange else None), (*target, moved))

    def _new(self, node: Node) -> int:
        self.nodes.append(node)
        self.names[len(self.nodes) - 1] = {}
        return len(self.nodes) - 1

    def _change(self, *entries: tuple[int, str, int | None]) -> None:
        if entries[0][0] < 0:
            return
        self.steps.append(Step(entries=entries))
        for folder, name, number in entries:
            _set(self.names[folder], name, number)

    def _place(self, paths: Sequence[bytes], bases: Sequence[str], which: int = 0) -> tuple[int, str]:
        """(the folder, the name in it) of one of a call's paths as the files are now; (-1, "") of one elsewhere.

        bases: of the paths, AT_FDCWD or the descriptor of an open folder; [] for a call that knows none.
        """
        path, number = os.path.normpath(os.fsdecode(paths[which])), self.root
        if os.path.isabs(path):
            if path != str(self.folder) and not path.startswith(f"{self.folder}/"):
                return -1, ""
            path = os.path.relpath(path, self.folder)
        elif bases and bases[which] != "AT_FDCWD":
            number = self._open.get(int(bases[which]), [-1])[0]
        *folders, name = path.split("/")
        if name == ".":
            return number, ""
        for each in folders:
            number = self.names[number].get(each, -1) if number >= 0 else -1
        return (number, name) if number >= 0 else (-1, "")

    def cuts(self, seed: int = 0) -> Iterator[tuple[int, dict[str, bytes | None]]]:
        """(how many steps were made, the files by path, None for a folder) after a power cut, each state once."""
        rng, seen = random.Random(seed), set()
        chosen: list[Callable[[Step], float]] = [
            lambda step: 1, lambda step: 0, lambda step: bool(step.entries), lambda step: not step.entries,
            lambda step: 1 if step.entries else 0.5, lambda step: 1 if step.entries else -1,
        ]  # fmt: skip
        chosen += [lambda step: rng.choice((0, 1, 1, 0.5, -1)) if step.written else rng.random() < 0.5] * RANDOM
        for end in range(len(self.steps) + 1):
            for share in chosen:
                files = self._state(end, share)
                digest = hashlib.sha256(repr(sorted(files.items())).encode()).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield end, files

    def _state(self, end: int, share: Callable[[Step], float]) -> dict[str, bytes | None]:
        """The files after `end` steps. share: how much is there of a step that is not safe; -1: its size, of zeros."""
        names = {number: dict(node.entries) for number, node in enumerate(self.nodes)}
        contents = {number: bytearray(node.data) for number, node in enumerate(self.nodes) if node.data is not None}
        for step in self.steps[:end]:
            part = 1 if step.safe_at < end else share(step)
            if step.written is not None and part:
                number, at, data = step.written
                _write(contents[number], at, data, part)
            elif part:
                for folder, name, entry in step.entries:
                    _set(names[folder], name, entry)
        files: dict[str, bytes | None] = {}

        def walk(number: int, path: str) -> None:
            for name, entry in names[number].items():
                files[path + name] = bytes(contents[entry]) if entry in contents else None
                if entry not in contents:
                    walk(entry, f"{path}{name}/")

        walk(self.root, "")
        return files


def _write(content: bytearray, at: int, data: bytes | None, part: float) -> None:
    if data is None:
        content[:] = content[:at] + bytes(max(at - len(content), 0))
        return
    data = bytes(len(data)) if part < 0 else data[: int(len(data) * part)]
    content.extend(bytes(max(at - len(content), 0)))
    content[at : at + len(data)] = data


def _set(entries: dict[str, int], name: str, number: int | None) -> None:
    if number is None:
        entries.pop(name, None)
    else:
        entries[name] = number


def put(files: dict[str, bytes | None], folder: Path) -> None:
    """Write a state into a new folder."""
    folder.mkdir()
    for path, content in sorted(files.items()):
        if content is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
