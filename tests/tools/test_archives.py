"""Archives are read and unpacked whole and inside their folder, or refused."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile

import pytest
from dhn.datasets import archives

MEMBERS = {"top/a.txt": b"first", "top/deep/b.txt": b"second", "top/c.bin": bytes(1000)}


def make_zip(path, members=MEMBERS, mode=None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None:
                info.external_attr = mode << 16
            archive.writestr(info, raw)
    return path


def make_tar(path, members=MEMBERS, kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(raw) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(raw))
    return path


def everything(name):
    return name


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpack_and_read(tmp_path, make):
    archive = make(tmp_path / "archive")
    assert archives.unpack(archive, tmp_path / "out", everything, 2000) == 3
    for name, raw in MEMBERS.items():
        assert (tmp_path / "out" / name).read_bytes() == raw
    keep = {"top/deep/b.txt": "b"}.get
    assert archives.unpack(archive, tmp_path / "out", keep, 2000) == 1  # gives way to the new one
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]
    assert archives.read(archive, ["a.txt", "b.txt"], 2000) == {"a.txt": b"first", "b.txt": b"second"}
    with pytest.raises(
        archives.ArchiveError, match=r"hold d.txt, found none of that name in 3 files, the first .* top"
    ):
        archives.read(archive, ["a.txt", "d.txt"], 2000)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../x", "/etc/x", "top/../../x", "..\\x", "C:x"])
def test_paths_outside_are_refused(tmp_path, make, name):
    archive = make(tmp_path / "archive", {"good": b"1", name: b"2"})
    with pytest.raises(archives.ArchiveError, match="not a path inside the archive's own folder"):
        archives.unpack(archive, tmp_path / "out" / "in", everything, 2000)
    assert not (tmp_path / "out").exists()


def test_a_directory_that_names_a_place_before_the_archive(tmp_path):
    raw = bytearray(make_zip(tmp_path / "archive").read_bytes())
    end = raw.rindex(b"PK\5\6")  # its bytes 16 to 19: where the directory begins
    raw[end + 16 : end + 20] = (int.from_bytes(raw[end + 16 : end + 20], "little") + 1).to_bytes(4, "little")
    (tmp_path / "archive").write_bytes(raw)
    with pytest.raises(archives.ArchiveError, match=r"archive: is not a complete zip or tar archive"):
        archives.unpack(tmp_path / "archive", tmp_path / "out", everything, 2000)


def test_targets_outside_are_refused(tmp_path):
    with pytest.raises(archives.ArchiveError, match="not a path inside"):
        archives.unpack(make_zip(tmp_path / "archive"), tmp_path / "out", lambda name: "../" + name, 2000)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    archive = make_tar(tmp_path / "archive", {"x": b""}, kind, "/etc/passwd")
    with pytest.raises(archives.ArchiveError, match="'x' is a link or a device"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)
    assert not (tmp_path / "out").exists()


def test_links_in_a_zip_are_refused(tmp_path):
    archive = make_zip(tmp_path / "archive", {"x": b"/etc/passwd"}, 0o120777)
    with pytest.raises(archives.ArchiveError, match="'x' is a link or a device"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_more_bytes_than_expected_are_refused(tmp_path, make):
    archive = make(tmp_path / "archive", {"bomb": bytes(10**6)})
    assert archive.stat().st_size < 2000
    with pytest.raises(archives.ArchiveError, match="expected at most 2,000 bytes once unpacked, found more at 'bomb'"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr("x", b"1")
        archive.writestr("x", b"2")
    with pytest.raises(archives.ArchiveError, match="'x' stands in it twice"):
        archives.unpack(tmp_path / "archive", tmp_path / "out", everything, 2000)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_damaged_archive_leaves_nothing(tmp_path, make):
    raw = make(tmp_path / "archive", {"x": bytes(range(256)) * 400}).read_bytes()
    (tmp_path / "archive").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(archives.ArchiveError, match="not a complete zip or tar archive"):
        archives.unpack(tmp_path / "archive", tmp_path / "out", everything, 10**6)
    assert not (tmp_path / "out").exists()
    (tmp_path / "archive").write_bytes(b"neither")
    with pytest.raises(archives.ArchiveError, match="not a complete zip or tar archive") as caught:
        archives.read(tmp_path / "archive", ["x"], 10**6)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_what_macos_adds_is_not_there(tmp_path, make):
    added = {"__MACOSX/top/._a.txt": b"x", "top/._c.bin": b"x", "__MACOSX/a.txt": b"another"}
    archive = make(tmp_path / "archive", {**added, **MEMBERS})
    assert archives.unpack(archive, tmp_path / "out", everything, 2000) == 3
    assert archives.read(archive, ["a.txt"], 2000) == {"a.txt": b"first"}


@pytest.mark.parametrize("compression", ["xz", "bz2", "gz"])
def test_damage_in_any_compression_is_one_sentence(tmp_path, compression):
    path = tmp_path / "a.tar"
    with tarfile.open(path, f"w:{compression}") as archive:
        info = tarfile.TarInfo("a")
        info.size = 50000
        archive.addfile(info, io.BytesIO(random.Random(1).randbytes(50000)))
    whole = path.read_bytes()
    for at in (20, 3000):
        path.write_bytes(whole[:at] + bytes(40) + whole[at + 40 :])
        with pytest.raises(archives.ArchiveError, match=r"a\.tar: is not a complete zip or tar archive \("):
            archives.unpack(path, tmp_path / "out", everything, 1 << 20)
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_zip_of_a_compression_that_python_lacks(tmp_path):
    raw = bytearray(make_zip(tmp_path / "a.zip").read_bytes())
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # the method of every header: 97, WavPack
        at = -1
        while (at := raw.find(mark, at + 1)) >= 0:
            raw[at + offset] = 97
    (tmp_path / "a.zip").write_bytes(raw)
    with pytest.raises(archives.ArchiveError, match=r"a\.zip: is not .*compression"):
        archives.unpack(tmp_path / "a.zip", tmp_path / "out", everything, 1 << 20)


def test_a_zip_whose_directory_swallows_an_entry(tmp_path):
    """A comment of the first entry that is said to reach to the end: zipfile reads one entry and says nothing."""
    archive = make_zip(tmp_path / "archive")
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"PK\1\2") + 32
    raw[at : at + 2] = b"\xff\xff"
    archive.write_bytes(raw)
    with pytest.raises(archives.ArchiveError, match=r"end says that it has 3 entries, its directory has 1"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)
    assert not (tmp_path / "out").exists()


def test_a_zip_whose_directory_says_that_a_file_holds_nothing(tmp_path):
    """Neither compressed bytes nor a checksum: zipfile gives an empty file for it."""
    archive = make_zip(tmp_path / "archive")
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"PK\1\2")
    raw[at + 16 : at + 24] = bytes(8)
    archive.write_bytes(raw)
    size = int.from_bytes(raw[at + 24 : at + 28], "little")
    with pytest.raises(archives.ArchiveError, match=rf"archive: expected {size} bytes in .*, found 0; get it again"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_an_archive_without_a_file_is_refused(tmp_path, make):
    archive = make(tmp_path / "archive", {})
    with pytest.raises(archives.ArchiveError, match=r"archive: expected files in it, found none; get it again"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)


def test_a_name_that_a_nul_ends_early_is_refused(tmp_path):
    archive = make_zip(tmp_path / "archive", {"photos/crow.jpg": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"photos/crow.jpg", b"photos/\0row.jpg"))
    with pytest.raises(archives.ArchiveError, match=r"is not a path inside the archive's own folder"):
        archives.unpack(archive, tmp_path / "out", everything, 2000)


def test_a_zip_of_70_000_entries_and_one_with_a_comment(tmp_path):
    """Of zip64, whose end has a form of its own; bytes after the end are no part of it."""
    archive = make_zip(tmp_path / "many", {f"{number}": b"" for number in range(70_000)})
    with archives.opened(archive, 2000) as members:
        assert len(members) == 70_000
    archive = make_zip(tmp_path / "comment")
    with zipfile.ZipFile(archive, "a") as file:
        file.comment = b"of ours"
    archive.write_bytes(archive.read_bytes() + b"\n")
    with archives.opened(archive, 2000) as members:
        assert len(members) == 3
