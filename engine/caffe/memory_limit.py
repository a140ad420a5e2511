"""How much memory this process may take: what the machine, its container and `ulimit -v` or `-d` leave it."""

from __future__ import annotations

import os
import resource
from pathlib import Path

_SMALL = 1 << 26  # bytes that are not worth asking for
_MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
_CONTAINER = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def limit() -> int:
    """Bytes that the process may take besides those it has, at most."""
    limits = [_MACHINE]
    for path in _CONTAINER:
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # there is none, or it says max
            continue
    size, _, _, _, _, data, _ = map(int, Path("/proc/self/statm").read_text().split())
    for kind, used in ((resource.RLIMIT_AS, size), (resource.RLIMIT_DATA, data)):
        soft = resource.getrlimit(kind)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(max(soft - used * resource.getpagesize(), 0))
    return min(limits)


def fits(size: int) -> bool:
    """Whether so many bytes more can be taken at all."""
    return size <= _SMALL or size <= limit()
