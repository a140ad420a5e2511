"""What one client may cost the server."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds of a request and of how many there are at a time. The tests set smaller ones."""

    upload_bytes: int = 16 << 20  # of a request's body
    head_bytes: int = 65536  # of a request's line and headers, as they are looked at block by block
    pixels: int = 50_000_000  # of a picture; decoded, it takes 150 MB
    top: int = 1000  # results of one answer
    body_seconds: float = 20  # from a request's head to the last byte of its body
    idle_seconds: float = 10  # without a complete request head, or without a byte that the client takes
    connections: int = 400  # at a time; more are told to come back
    uploads: int = 8  # pictures at a time, from the first byte to the answer
    searches: int = 128  # searches at a time, those that wait among them
    look_seconds: float = 1  # between two looks at whether the index was changed
    retry_seconds: int = 1  # what a client that finds the server full is told to wait
