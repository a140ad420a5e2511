"""What Python's zipfile does not look at."""

from __future__ import annotations

import zipfile


def check_directory(file: zipfile.ZipFile) -> None:
    """Raise BadZipFile unless the directory has as many entries as the zip's end says; zipfile does not look."""
    stream = file.fp
    assert stream is not None  # it is open
    stream.seek(file.start_dir)
    directory = stream.read()
    at = directory.rfind(b"PK\5\6") + 10
    count = int.from_bytes(directory[at : at + 2], "little")
    if count == 0xFFFF:  # more: the end of zip64 says how many
        at = directory.rfind(b"PK\6\6") + 32
        count = int.from_bytes(directory[at : at + 8], "little")
    if count != len(file.infolist()):
        raise zipfile.BadZipFile(f"its end says that it has {count} entries, its directory has {len(file.infolist())}")
