"""Zip and tar archives read and unpacked safely: nothing outside the folder, no links, no more bytes than expected.

An archive is looked through before a byte of it is written. One that names a path outside, a link, a device, or the
same file twice, or that announces more bytes than its caller expects, is refused as a whole, with the member's name.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from atomic_writes import make_folder
from atomic_writes.folders import replacing_folder

from dhn.progress import counter
from dhn.zip_files import check_directory

CHUNK = 1 << 20
# What Python's readers of archives raise for bytes that they cannot read; ValueError: for a name; NotImplementedError:
# for a compression that zipfile lacks.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, NotImplementedError)
_ERRNO_OF_DAMAGE = (None, errno.EINVAL)  # of gzip's and bz2's own OSErrors; of a place before the archive's begin


class ArchiveError(ValueError):
    """An archive that is damaged, unsafe, or not what was expected. Names archive and member."""


@contextlib.contextmanager
def _naming_damage(archive: Path) -> Iterator[None]:
    """Raise ArchiveError, which names the archive, for bytes of it that Python's readers cannot read."""
    try:
        yield
    except ArchiveError:
        raise
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _ERRNO_OF_DAMAGE:
            raise  # of the system
        reason = str(error).split("\n")[0].removesuffix(":")
        raise ArchiveError(f"{archive}: is not a complete zip or tar archive ({reason}); get it again") from None
    except MemoryError:  # a damaged .xz may ask for 4 GB
        raise ArchiveError(f"{archive}: asks for more memory to be unpacked than there is; get it again") from None


@dataclass(frozen=True)
class Member:
    """A regular file in an archive or a folder: its path there, its size in bytes, and how to open it."""

    archive: Path
    name: str
    size: int
    open: Callable[[], IO[bytes]]

    def blocks(self) -> Iterator[bytes]:
        """What it holds, a block at a time. Raises ArchiveError where it is damaged."""
        found = 0
        with _naming_damage(self.archive), self.open() as stream:
            while block := stream.read(CHUNK):
                found += len(block)
                yield block
        if found != self.size:  # a zip's directory may say so with a checksum that is right
            raise ArchiveError(
                f"{self.archive}: expected {self.size:,} bytes in {self.name!r}, found {found:,}; get it again"
            )

    def read(self) -> bytes:
        """What it holds. Raises ArchiveError where it is damaged."""
        return b"".join(self.blocks())


def _check_name(archive: Path, name: str) -> None:
    outside = name.startswith("/") or ".." in name.split("/")
    if not name or outside or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise ArchiveError(f"{archive}: {name!r} is not a path inside the archive's own folder; nothing was unpacked")


def _zip_members(archive: Path, file: zipfile.ZipFile) -> Iterator[Member]:
    check_directory(file)
    for info in file.infolist():
        _check_name(archive, info.orig_filename)  # zipfile ends a name at a NUL
        mode = info.external_attr >> 16
        if info.is_dir() and not info.file_size:
            continue
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise ArchiveError(f"{archive}: {info.filename!r} is a link or a device; nothing was unpacked")
        if info.flag_bits & 1:
            raise ArchiveError(f"{archive}: {info.filename!r} is encrypted; nothing was unpacked")
        yield Member(archive, info.filename, info.file_size, functools.partial(file.open, info))


def _content(file: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    stream = file.extractfile(info)
    assert stream is not None  # of a regular file, there is one
    return stream


def _tar_members(archive: Path, file: tarfile.TarFile) -> Iterator[Member]:
    for info in file:
        _check_name(archive, info.name)
        if info.isdir():
            continue
        if not info.isreg():
            raise ArchiveError(f"{archive}: {info.name!r} is a link or a device; nothing was unpacked")
        yield Member(archive, info.name, info.size, functools.partial(_content, file, info))
    while file.fileobj is not None and file.fileobj.read(CHUNK):
        pass  # the check sum of what is compressed comes last, and a tar has none of its own


@contextlib.contextmanager
def opened(archive: str | os.PathLike, limit: int) -> Iterator[list[Member]]:
    """The files in a zip or tar archive (compressed or not), all of them checked.

    `limit`: bytes that all of them may have together. Raises ArchiveError.
    """
    archive = Path(archive)
    with contextlib.ExitStack() as stack:
        with _naming_damage(archive):
            if zipfile.is_zipfile(archive):
                unpacked = _zip_members(archive, stack.enter_context(zipfile.ZipFile(archive)))
            else:
                unpacked = _tar_members(archive, stack.enter_context(tarfile.open(archive)))
            members, names, size = [], set(), 0
            for member in unpacked:
                if any(part == "__MACOSX" or part.startswith("._") for part in member.name.split("/")):
                    continue  # what macOS adds to an archive: not the files, but facts about them
                if member.name in names:
                    raise ArchiveError(f"{archive}: {member.name!r} stands in it twice; nothing was unpacked")
                size += member.size
                if size > limit:
                    raise ArchiveError(
                        f"{archive}: expected at most {limit:,} bytes once unpacked, found more at {member.name!r}; "
                        "nothing was unpacked"
                    )
                names.add(member.name)
                members.append(member)
            if not members:
                raise ArchiveError(f"{archive}: expected files in it, found none; get it again")
        yield members


def read(archive: str | os.PathLike, names: Iterable[str], limit: int) -> dict[str, bytes]:
    """The contents of the files whose base names are given. Raises ArchiveError where one is missing."""
    wanted, contents = set(names), {}
    with opened(archive, limit) as members:
        for member in members:
            name = member.name.rsplit("/", 1)[-1]
            if name in wanted:
                contents[name] = member.read()
    if missing := sorted(wanted - set(contents)):
        content = f"{len(members):,} files, the first of them {members[0].name}"
        raise ArchiveError(f"{archive}: expected it to hold {', '.join(missing)}, found none of that name in {content}")
    return contents


def unpack(archive: str | os.PathLike, folder: str | os.PathLike, keep: Callable[[str], str | None], limit: int) -> int:
    """Write files of an archive below `folder`, which appears only when all are there. Returns how many.

    `keep(name)`: the path below `folder` of the member of this name, or None to leave it out. A folder that is there
    already gives way. Raises ArchiveError, before anything is written, where the archive is unsafe.
    """
    folder = Path(folder)
    with opened(archive, limit) as members:
        targets = {member.name: target for member in members if (target := keep(member.name)) is not None}
        for target in targets.values():
            _check_name(Path(archive), target)
        make_folder(folder.parent)
        with replacing_folder(folder) as partial, counter() as progress:
            task = progress.add_task(f"unpack {Path(archive).name}", total=len(targets))
            for member in members:
                if member.name not in targets:
                    continue
                path = partial / targets[member.name]
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as out:
                    for block in member.blocks():
                        out.write(block)
                progress.advance(task)
    return len(targets)
