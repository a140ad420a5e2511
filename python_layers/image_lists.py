"""Image lists: the one parser of `path l1 ... lC` and `path label` lines, for the data layers and the tools.

A line is a path, which may hold blanks, and its labels: whole numbers, as many on each line as on the first. Lines of
one number are class numbers. Blank lines are skipped. Lines end in LF or CRLF; fields are separated by spaces and tabs.
Standard library only.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_LABEL = re.compile(r"[+-]?[0-9]{1,18}")  # ASCII digits alone: int() and str.isdigit() take others too
_BLANKS = " \t\v\f"
_WORDS = re.compile(f"[^{_BLANKS}]+")
_UNUSUAL = re.compile(r"[^\x01-\x1b\x20-\x7f]")  # not ASCII, NUL, or separators that only str.split takes for blanks


class ListError(ValueError):
    """A list that cannot be read as one. Names file and line, what was expected and what was found."""


class ImageList(NamedTuple):
    """The N lines of a list: each one's path as written, its labels (all of one length), its line number from 1."""

    names: list[str]
    labels: list[list[int]]
    lines: list[int]


def read(path: str | os.PathLike, encoding: str = "utf-8", labels: str = "required") -> ImageList:
    """Read a list file.

    encoding: of the paths; a byte order mark is skipped. In UTF-8 a byte that is none still names its file, as Python
    does with file names (surrogateescape). labels: `optional`: a list of paths without labels has empty rows.
    Raises OSError for a file that cannot be read, ListError for one that is no list.
    """
    if labels not in ("required", "optional"):
        raise ValueError(f"labels must be 'required' or 'optional'; found {labels!r}")
    found = ImageList([], [], [])
    count = -1
    text = _text(path, encoding)
    plain = not _UNUSUAL.search(text)
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(_BLANKS)
        if not line:
            continue
        row = _read_plain(line, count) if plain and count > 0 else None
        if row is not None:
            found.names.append(row[0])
            found.labels.append(row[1])
            found.lines.append(number)
            continue
        where = f"{os.fspath(path)}:{number}"
        if "\0" in line:
            raise ListError(
                f"{where}: expected a path and its labels, found a NUL character in {line!r}; a list in "
                f"UTF-16 needs the encoding 'utf-16'"
            )
        words = list(_WORDS.finditer(line))
        numbers = 0
        while numbers < len(words) - 1 and _LABEL.fullmatch(words[-1 - numbers].group()):
            numbers += 1
        if count < 0:
            count = numbers
        if numbers != count or (not count and labels == "required"):
            raise ListError(f"{where}: expected {_expected(count, labels, found.lines)}, found {numbers} in {line!r}")
        found.names.append(line[: words[-1 - count].end()])
        found.labels.append([int(word.group()) for word in words[len(words) - count :]])
        found.lines.append(number)
    if not found.names:
        raise ListError(f"{os.fspath(path)}: expected at least one line `path l1 ... lC` or `path label`, found none")
    return found


def can_hold(name: str) -> bool:
    """Whether a line of a list in UTF-8 can hold this path: `read` gives it back as it is."""
    words = _WORDS.findall(name)
    return (
        bool(words)
        and name == name.strip(_BLANKS + "\ufeff")
        and not re.search("[\0\n\r]", name)
        and (len(words) == 1 or not _LABEL.fullmatch(words[-1]))
    )


def _read_plain(line: str, count: int) -> tuple[str, list[int]] | None:
    """(path, labels) of a line of ASCII whose labels have no sign, in a third of the time; None: another line."""
    name, *labels = line.rsplit(None, count)
    if len(labels) < count or not all(map(str.isdigit, labels)) or max(map(len, labels)) > 18:
        return None
    return None if _LABEL.fullmatch(name.rsplit(None, 1)[-1]) else (name, list(map(int, labels)))


def locate(root: str | os.PathLike, name: str) -> str:
    """The file that a list's path means: below `root`; a path that begins with / and exists is taken as it is."""
    if name.startswith("/") and os.fspath(root) and not os.path.exists(name):
        name = name.lstrip("/")
    return os.path.join(os.fspath(root), name)


def _text(path: str | os.PathLike, encoding: str) -> str:
    """The list's text, its lines ending in \\n."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") and not encoding.lower().startswith("utf-16"):
        raise ListError(
            f"{os.fspath(path)}: expected text in {encoding}, found the byte order mark of UTF-16; name "
            f"the encoding 'utf-16', or save the list as UTF-8"
        )
    try:
        text = data.decode(encoding, "surrogateescape")
    except LookupError:
        raise ListError(
            f"{os.fspath(path)}: unknown encoding {encoding!r}; expected one such as utf-8, latin-1 or gbk"
        ) from None
    except UnicodeError as error:
        raise ListError(
            f"{os.fspath(path)}: expected text in {encoding}, found bytes that are none ({error})"
        ) from None
    text = text[1:] if text.startswith("\ufeff") else text
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _expected(count: int, labels: str, lines: list[int]) -> str:
    if count > 0:
        return f"a path and {count} whole number{'s' * (count > 1)}, as on line {lines[0]}"
    if lines or labels == "optional":
        return "a path without labels, as on the lines before"
    return "a path and its labels (whole numbers, with blanks between them)"
