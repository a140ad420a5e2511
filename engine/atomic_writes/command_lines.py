"""Command lines as argparse reads them, but for what it gets wrong."""

from __future__ import annotations

import argparse
import sys
from typing import Any


class Parser(argparse.ArgumentParser):
    """argparse's parser, which ends with a sentence where `--` is there twice or is the value of an option.

    Before Python 3.13 the argument becomes an empty list there.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        if words.count("--") > 1:
            self.error(f"expected -- once at most, found it {words.count('--')} times")
        for word in words:
            if word.startswith("-") and word.endswith("=--"):
                self.error(f"argument {word[:-3]}: expected a value, found --")
        return super().parse_known_args(words, namespace)
