"""The index that a server answers from: opened with its digests checked, and again when its folder changes."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import dhn
from dhn.search.encoder import Encoder
from dhn.search.index import Index, open_index
from dhn.search.server.limits import Limits
from dhn.search.server.work import Workers

SMALL = 100_000  # items
log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Snapshot:
    """What one request works with from begin to end: an open index, and its net if it has one."""

    index: Index
    encoder: Encoder | None

    @property
    def is_small(self) -> bool:
        """Whether a search takes less time (about 0.2 ms) than another thread takes to begin with it."""
        return len(self.index) <= SMALL


class Served:
    """An index folder that may be appended to, replaced or damaged while requests are answered from it.

    A new index.json is opened in a thread with its digests checked; requests go on with the index they know until it is
    ready, and for good if it is damaged. `problem` then says why.
    """

    def __init__(self, folder: str | os.PathLike, limits: Limits, gpu: int | None, verify: bool) -> None:
        """gpu: that computes codes; None: the CPU. verify: compare the digests now too.

        Raises SearchError for a folder without a complete index, or whose net is not there; what its net raises.
        """
        self.folder = Path(folder)
        self.searches = Workers("search", 2, limits.searches)
        self.pictures = Workers("net", 1, limits.uploads)  # a net is for one thread at a time
        self._gpu = gpu
        self._look_seconds = limits.look_seconds
        self.problem: str | None = None
        self._opening: asyncio.Task | None = None
        self._stamp, self._looked = self._read_stamp(), time.monotonic()
        self._snapshot = self._open(None, verify)

    def snapshot(self) -> Snapshot:
        """The index and the net as of now; called on the event loop, once a request."""
        now = time.monotonic()
        if now - self._looked > self._look_seconds and self._opening is None:
            self._looked, stamp = now, self._read_stamp()
            if stamp is not None and stamp != self._stamp:
                self._stamp = stamp
                self._opening = asyncio.get_running_loop().create_task(self._reopen())
        return self._snapshot

    def close(self) -> None:
        """End the threads."""
        self.searches.close()
        self.pictures.close()

    def _read_stamp(self) -> tuple[int, int, int] | None:
        """What changes with index.json; None while there is none."""
        try:
            facts = os.stat(self.folder / "index.json")
        except OSError:
            return None
        return facts.st_ino, facts.st_mtime_ns, facts.st_size

    async def _reopen(self) -> None:
        try:
            self._snapshot = await self.pictures.run(self._open, self._snapshot, True)
            self.problem = None
            log.info("%s has changed: %d images now", self.folder, len(self._snapshot.index))
        except (ValueError, OSError, RuntimeError) as error:  # of the index, or of its net
            self.problem = "the index has changed and cannot be used; the server's log says why"
            log.warning("%s has changed and is not used: %s", self.folder, dhn.sentence(error))
        finally:
            self._opening = None

    def _open(self, old: Snapshot | None, verify: bool) -> Snapshot:
        """Open the folder; the old net is kept where the new index names the same one."""
        index = open_index(self.folder, verify)
        if len(index):
            index.search(index.codes_of([0]))  # loads the compiled kernels: the first request need not wait for them
        net = index.about.get("net")
        if old is not None and old.index.about.get("net") == net:
            return Snapshot(index, old.encoder)
        return Snapshot(index, Encoder(index, self._gpu) if net and "model" in net else None)
