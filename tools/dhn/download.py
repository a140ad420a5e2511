"""Download one file from a list of mirrors: resumed where it stopped, checked by its digest, never left half.

The bytes go to `<target>.part`; only a file whose digest is right is renamed to its final name. A transfer
that breaks off is taken up again with an HTTP Range request, a server that ignores the range is read from
the start, a file with a wrong digest is thrown away, and the next mirror is tried. When none is left, the
error says what each of them answered, and which file to put where by hand.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import atomic_writes
from atomic_writes import locks

from dhn.files import CHUNK, digest_of
from dhn.progress import transfer

if TYPE_CHECKING:
    import http.client

    from rich.progress import Progress

TIMEOUT = 30  # seconds without a byte before a mirror counts as dead
TRIES = 3  # transfers per mirror, each resuming the one before
USER_AGENT = "dhn-caffe-toolkit"
# by the prefix of a digest, or the length of one without, in hex
ALGORITHMS = {40: ("sha1", "SHA-1"), 64: ("sha256", "SHA-256"), "git": ("git", "git blob id")}

# a digest in hex, `git:` and a blob id, or a function that raises ValueError or OSError for a file that is not the one
Expected = str | Callable[[Path], object]


class DownloadError(RuntimeError):
    """No mirror gave the file. The message lists what each answered and what to put where by hand."""


def parse_digest(expected: str) -> tuple[str, str, str]:
    """Algorithm of a digest (as of files.digest_of), its name for people, and the hex digits."""
    prefix, _, digits = expected.rpartition(":")
    return *ALGORITHMS[prefix or len(digits)], digits


def is_complete(path: str | os.PathLike, expected: Expected, gunzip: bool = False) -> bool:
    """True if the file exists and is what `expected` says: its digest, or a check of its contents."""
    try:
        if callable(expected):
            expected(Path(path))
            return True
        algorithm, _, digits = parse_digest(expected)
        return digest_of(path, algorithm, gunzip) == digits
    except (OSError, EOFError, ValueError, zlib.error):
        return False


def _what(expected: Expected, gunzip: bool) -> str:
    """What the file is known by, for messages."""
    if callable(expected):
        return "known by its contents"
    _, name, digits = parse_digest(expected)
    return f"{name} of its decompressed contents: {digits}" if gunzip else f"{name}: {digits}"


def _size_of(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None and length.isdigit() else None


def _transfer(url: str, part: Path, progress: Progress, label: str) -> None:
    """One request: append to `part` what is missing (or write it again). Raises OSError when it breaks off."""
    import urllib.error
    import urllib.request

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond what we have: the digest decides
            return
        raise
    with response:
        answered = response.headers.get("Content-Range", "")
        ranged = response.status == 206 and answered.startswith(f"bytes {have}-")
        start = have if ranged else 0
        total = _size_of(response, start)
        task = progress.add_task(label, total=total, completed=start)
        try:
            with open(part, "ab" if start else "wb") as out:
                got = start
                while block := response.read(CHUNK):
                    out.write(block)
                    got += len(block)
                    progress.update(task, completed=got)
                out.flush()
                os.fsync(out.fileno())
        finally:
            progress.remove_task(task)
    if total is not None and got < total:
        raise OSError(f"the transfer broke off after {got} of {total} bytes")


def _from_mirror(url: str, part: Path, expected: Expected, gunzip: bool, progress: Progress, label: str) -> str | None:
    """Fill `part` from one mirror. Returns None when its digest is right, else what went wrong."""
    import http.client
    import urllib.error

    problem = "no answer"
    for attempt in range(TRIES):
        resumed = part.exists()
        try:
            _transfer(url, part, progress, label)
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            if error.code < 500:
                return problem
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts are OSErrors
            problem = str(getattr(error, "reason", None) or error or type(error).__name__)
        except (ValueError, OverflowError) as error:
            return f"no address that can be asked ({error})"
        else:
            if is_complete(part, expected, gunzip):
                return None
            part.unlink(missing_ok=True)
            problem = f"another file than expected ({_what(expected, gunzip)})"
            if not resumed:  # a resumed file may have been begun from another mirror: start it afresh once
                return problem
            continue
        if attempt + 1 < TRIES:
            time.sleep(0.2 * 4**attempt)
    return problem


def download(urls: Sequence[str], target: str | os.PathLike, expected: Expected, gunzip: bool = False) -> bool:
    """Bring `target` here from the first of `urls` that gives the right contents.

    `expected` is the SHA-256 or SHA-1 in hex, of the file or (with `gunzip`) of what it holds once decompressed, `git:`
    and the id that git has for the file, or a function that raises ValueError for other contents.
    Returns False if the file was already there and right, True if it was downloaded.
    Raises DownloadError when no mirror gave it; what was received stays in `<target>.part` for the next time. Raises
    locks.HeldError where another process downloads it.
    """
    target = Path(target)
    if is_complete(target, expected, gunzip):
        return False
    atomic_writes.make_folder(target.parent)
    target = Path(os.path.realpath(target))  # a link stays
    with locks.hold(target):
        return _download(urls, target, expected, gunzip)


def _download(urls: Sequence[str], target: Path, expected: Expected, gunzip: bool) -> bool:
    """As `download`, of a file that is not there, with its folder there and its lock held."""
    part = target.with_name(target.name + ".part")
    problems = []
    with transfer() as progress:
        for url in urls:
            problem = _from_mirror(url, part, expected, gunzip, progress, target.name)
            if problem is None:
                os.replace(part, target)
                atomic_writes.sync(target.parent)
                return True
            problems.append(f"  {url}\n    {problem}")
    raise DownloadError(
        f"cannot download {target.name}. Tried:\n" + "\n".join(problems) + "\nGet the file from any of these "
        f"addresses on a machine with a network, put it at\n  {target.resolve()}\n({_what(expected, gunzip)})\n"
        "and run this again."
    )
