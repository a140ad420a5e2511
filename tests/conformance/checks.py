"""The checks of BVLC's that a user can reach, each with the recorded cases that stop at it.

`checks.txt` is the list. A refusal's note begins with the file and line at which BVLC stopped (cases/refusing.py), so
nothing but the run itself says which case belongs to which check.
"""

from __future__ import annotations

from pathlib import Path

import comparison

TABLE = Path(__file__).resolve().parent / "checks.txt"
KINDS = ("reached", "unreached")

# pycaffe's exceptions do not say where they were thrown: words of each, and its line in _caffe.cpp
THROWN = {
    "Could not open file": 81,
    "must be C contiguous": 89,
    "must be 4-d": 92,
    "must be float32": 95,
    "wrong number of channels": 98,
    "wrong height": 101,
    "wrong width": 104,
    "set_input_arrays may only be called if": 173,
    "data and labels must have the same first dimension": 186,
    "must be a multiple of batch size": 190,
    "Blob.reshape takes no kwargs": 246,
    "BlobVec.add_blob takes no kwargs": 260,
}


def places(kind: str, table: Path = TABLE) -> set[str]:
    """{"net.cpp:79", ...} of one of KINDS. Raises ValueError for a line of the table that is none of its forms."""
    found, file, head = set(), "", ""
    for number, line in enumerate(table.read_text().splitlines(), 1):
        if line.startswith("#"):
            continue
        if not line.startswith(" "):
            file, head = line.rsplit("/", 1)[-1], ""
            continue
        if not line.startswith("    "):  # else it goes on from the line before
            head = line.partition(":")[0].strip()
        if not file or head not in (*KINDS, "why"):
            raise ValueError(
                f"{table}:{number}: expected a file, or {', '.join(KINDS)} and line numbers, found {line!r}"
            )
        numbers, semicolon, _ = line.rpartition(": ")[2].partition(";")
        if head == kind:
            found.update(f"{file}:{int(each)}" for each in numbers.split())
        if semicolon:
            head = "why"
    return found


def place(note: str) -> str:
    """Where BVLC stopped, by a refusal's note; "" where a layer's, numpy's or pycaffe's own Python raised."""
    where, _, message = note.partition("] ")
    if where != "raised":
        return where
    lines = [line for words, line in THROWN.items() if words in message]
    return f"_caffe.cpp:{lines[0]}" if lines else ""


def cases(answers: comparison.Answers) -> dict[str, list[str]]:
    """The names of the cases that stopped at each place."""
    found: dict[str, list[str]] = {}
    for name, values in answers.items():
        if comparison.NOTE in values:
            found.setdefault(place(values[comparison.NOTE].item()), []).append(name)
    found.pop("", None)
    return found


def summary(expected: comparison.Answers, found: comparison.Answers) -> str:
    """One line: how many checks a user reaches, at how many a case stops the reference, how many the engine answers."""
    reached, at = places("reached"), cases(expected)
    answered = [
        where for where in reached & at.keys()
        if not any(comparison.differences(expected[name], found.get(name, {}))[1] for name in at[where])
    ]  # fmt: skip
    recorded = len(reached & at.keys())
    return f"checks of BVLC that a user reaches: {len(reached)}, recorded: {recorded}, answered: {len(answered)}"
