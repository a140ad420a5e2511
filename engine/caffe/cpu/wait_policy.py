"""How torch's threads wait for work: asleep (passive) or spinning (active).

GNU's OpenMP decides it when it is loaded, that is with torch. Its default spins for some milliseconds, which holds
cores that others want. Measured on two cores: milliseconds of LeNet's forward and backward with 64 images, the mean of
two runs' medians, with 0, 1 and 2 busy programs next to it:

    passive                 33    48    48
    GOMP_SPINCOUNT=1000     33    50    82
    GOMP_SPINCOUNT=10000    30    75    75
    OpenMP's default        29    63   222
    active                  28    66   150

So the package chooses passive, at most a fifth from the best everywhere, unless the user has chosen.
"""

from __future__ import annotations

import os
import sys

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def set_default() -> str:
    """Set OMP_WAIT_POLICY=passive where neither it nor GOMP_SPINCOUNT is set and torch is not loaded yet.

    Returns what holds, and who chose it, as `caffe doctor` says it.
    """
    for name in VARIABLES:
        if name in os.environ:
            return f"{name}={os.environ[name]}, as the environment has it"
    if "torch" in sys.modules:
        return "OpenMP's default: torch was imported before caffe"
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return "passive, caffe's default; OMP_WAIT_POLICY=active is faster on idle cores"


POLICY = set_default()  # at the first import of caffe
