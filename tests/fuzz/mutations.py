"""Damage to the content of a file: how bits, tokens, blocks and numbers of it change, drawn or one by one."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import arrays
import messages

_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_WORD = re.compile(rb"[\w./-]+|[^\w\s]")
_QUOTED = re.compile(rb'"[^"\n]*"|[\w./-]+|[^\w\s]')
_NUMBERS = [
    b"0", b"-1", b"1", b"2", b"3", b"255", b"256", b"65536", b"1000000", b"2147483647", b"2147483648",
    b"-2147483648", b"4294967295",
    b"9223372036854775807", b"-9223372036854775808", b"18446744073709551616", b"1" * 400, b"0.5",
    b"-0.0", b"1e30", b"1e-45", b"1e999", b"nan", b"inf", b"-inf", b"",
]  # fmt: skip
_PARTS = [
    b"\xff" * 8, bytes(8), b"\x7f", b'"', b"'", b"{", b"}", b"[", b"]", b"\n", b"\r\n", b"\t", b" ", b"\0", b"../",
    b"/", b"\xef\xbb\xbf", b"\xc3\xa4", b"\xed\xa0\x80", b"#", b":", b",", b"null", b"true", b"[" * 2000, b"%s", b"-",
    b"\x1b[31m",
]  # fmt: skip
_LIMITS = [0, 1, -1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
           1 << 40, (1 << 63) - 1, 1 << 63]  # fmt: skip
_VALUES: list[Any] = [
    None, True, -1, 0, 1, 0.5, 10**30, float("inf"), float("nan"), "", "x", "..", "1", [], [[]], ["x"], [1, 2], {},
    {"x": 1}, "\ud800", "\udc80", "a\0b", "a\nb", "/", ".", "~", "-", "x" * 300, "\x1b[31m", 1e308, 2**63, False,
]  # fmt: skip
_WORDS = [
    b"x", b'"x"', b'""', b"{", b"}", b"-1", b"a\0b", b"\xff", b"a" * 400, b'"a\\000b"', b'"\\377"', b'"/"', b'"."',
    b'".."', b'"a\\nb"', b'"' + b"a" * 300 + b'"', b"nan", b"-inf", b"1e400", b"0x10", b"true", b'"\\033[31m"',
    b"[]", b"[1, 2]", b"{}",
]  # fmt: skip
Edit = Callable[[bytearray, random.Random, Sequence[bytes]], None]


def _place(data: bytearray, rng: random.Random) -> int:
    """A position, often among the first or the last bytes, where headers and directories are."""
    size = max(len(data), 1)
    near = min(size, rng.choice([size, size, 64, 512, 4096]))
    return rng.randrange(near) if rng.random() < 0.8 else size - 1 - rng.randrange(near)


def _bit(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = _place(data, rng)
    data[at] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    data[_place(data, rng)] = rng.randrange(256)


def _part(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at, part = _place(data, rng), rng.choice(_PARTS)
    data[at : at + (len(part) if rng.random() < 0.5 else 0)] = part


def _cut(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    del data[_place(data, rng) :]


def _block(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A block is removed, repeated, set to one value, or copied to another place."""
    at, size = _place(data, rng), rng.choice([1, 4, 8, 64, 512, 4096])
    block = data[at : at + size]
    kind = rng.randrange(4)
    if kind == 0:
        del data[at : at + size]
    elif kind == 1:
        data[at:at] = block
    elif kind == 2:
        data[at : at + len(block)] = bytes([rng.choice([0, 255, 65])]) * len(block)
    else:
        to = _place(data, rng)
        data[to : to + len(block)] = block


def _number(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A number of a text becomes one at a limit of its type, or next to what it was."""
    found = list(_NUMBER.finditer(bytes(data[: 1 << 20])))
    if not found:
        return _limit(data, rng, others)
    number = rng.choice(found)
    new = rng.choice(_NUMBERS)
    if b"." not in number[0] and b"e" not in number[0].lower() and len(number[0]) < 15 and rng.random() < 0.3:
        new = b"%d" % (int(number[0]) + rng.choice([-1, 1, 10]))
    data[number.start() : number.end()] = new


def _limit(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Bytes become an integer at a limit of its type."""
    size = rng.choice([1, 2, 4, 8])
    value, order = rng.choice(_LIMITS) % (1 << 8 * size), rng.choice(["little", "big"])
    at = _place(data, rng) // size * size
    data[at : at + size] = value.to_bytes(size, order)


def _token(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """A word of a text is removed, repeated, replaced by another one of it, or exchanged with one."""
    words = list(_WORD.finditer(bytes(data[: 1 << 16])))
    if len(words) < 2:
        return _block(data, rng, others)
    one, two = sorted(rng.sample(words, 2), key=lambda word: word.start())
    kind = rng.randrange(4)
    if kind == 0:
        del data[one.start() : one.end()]
    elif kind == 1:
        data[one.end() : one.end()] = b" " + one[0]
    elif kind == 2:
        data[one.start() : one.end()] = two[0]
    else:
        data[two.start() : two.end()] = one[0]
        data[one.start() : one.end()] = two[0]
    return None


def _splice(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """The end of another file, or of this one from elsewhere, behind a beginning of this one."""
    other = rng.choice([bytes(data), *others])
    at = _place(data, rng)
    to = at if rng.random() < 0.5 else rng.randrange(len(other) + 1)
    data[at:] = other[to:]


EDITS: dict[str, Edit] = {
    "bit": _bit, "byte": _byte, "part": _part, "cut": _cut, "block": _block, "number": _number, "limit": _limit,
    "token": _token, "splice": _splice,
}  # fmt: skip
_BINARY = ("bit", "bit", "byte", "part", "cut", "block", "limit", "limit", "splice")
_TEXT = ("bit", "part", "cut", "block", "number", "number", "number", "token", "token", "token", "splice")


def mutate(content: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """A damaged copy of a file, by one edit more often than by several. others: files whose parts may get into it."""
    data = bytearray(content)
    edits = _BINARY if b"\0" in content[:4096] else _TEXT
    for _ in range(rng.choice([1, 1, 1, 1, 1, 2, 2, 3, 8])):
        if data:
            EDITS[rng.choice(edits)](data, rng, others)
    return bytes(data)


def drawn(content: bytes, seed: str, others: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Damaged copies without end; seed and number decide each."""
    return (mutate(content, random.Random(f"{seed}:{number}"), others) for number in itertools.count())


def none(content: bytes, seed: str, others: Sequence[bytes] = ()) -> Iterator[bytes]:
    """The content as it is, without end."""
    return itertools.repeat(content)


def each_value(content: bytes, seed: str, others: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Each of the other files in the place of this one; then all in which one array, one field of a message, or one
    value or word of a text is changed.

    Last, all in which a word stands in the place of another. seed: of the order of each.
    """
    rng = random.Random(seed)
    replaced = [other for other in dict.fromkeys(others) if other != content]
    rng.shuffle(replaced)
    yield from replaced
    changed = [*whole(content)]
    rng.shuffle(changed)
    yield from changed
    if b"\0" in content[:4096]:
        return
    try:
        edits = list(_values_of_json(json.loads(content)))
    except ValueError:
        edits = [*_numbers(content), *_words(content)]
    rng.shuffle(edits)
    yield from edits
    exchanged = list(_exchanged(content))
    rng.shuffle(exchanged)
    yield from (content[:start] + word + content[end:] for start, end, word in exchanged)


def whole(content: bytes) -> Iterator[bytes]:
    """Whole files of the same format, with another array or another field of a message."""
    yield from arrays.others(content)
    yield from messages.others(content)


def _values_of_json(good: Any) -> Iterator[bytes]:
    """JSON in which one value is of another kind, or is missing."""
    yield from (json.dumps(value).encode() for value in _VALUES)
    for *path, last in _paths(good):
        for value in [*_VALUES, KeyError]:
            new = copy.deepcopy(good)
            place = new
            for step in path:
                place = place[step]
            if value is KeyError:
                del place[last]
            elif place[last] == value and type(place[last]) is type(value):
                continue
            else:
                place[last] = value
            yield json.dumps(new).encode()


def _paths(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The keys to each value of a JSON text; of a list, to its first three."""
    steps = list(value) if isinstance(value, dict) else range(min(len(value), 3)) if isinstance(value, list) else ()
    for step in steps:
        yield (*at, step)
        yield from _paths(value[step], (*at, step))


def _numbers(text: bytes) -> Iterator[bytes]:
    """One number of it is another."""
    for found in _NUMBER.finditer(text):
        yield from (text[: found.start()] + number + text[found.end() :] for number in _NUMBERS if number != found[0])


def _exchanged(text: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, word): each word of it that can stand in the place of another one, and where that is."""
    words = [word for word in _QUOTED.finditer(text) if len(word[0]) > 1 or word[0].isalnum()]
    distinct = sorted({word[0] for word in words})
    for word in words:
        yield from ((*word.span(), other) for other in distinct if other != word[0])


def _words(text: bytes) -> Iterator[bytes]:
    """One word of it is missing, there twice, another, or changed places with the next one."""
    words = list(_QUOTED.finditer(text))
    for word, after in itertools.zip_longest(words, words[1:]):
        before, behind = text[: word.start()], text[word.end() :]
        yield before + behind
        yield before + word[0] + b" " + word[0] + behind
        yield from (before + other + behind for other in _WORDS)
        if after is not None:
            yield before + after[0] + text[word.end() : after.start()] + word[0] + text[after.end() :]
