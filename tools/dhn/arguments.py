"""Types of a command line's arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A type for argparse: a whole number from `least` to `most`."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"expected at least {least}, found {text}")
        if value > most:
            raise argparse.ArgumentTypeError(f"expected at most {most}, found {text}")
        return value

    return number
