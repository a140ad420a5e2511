"""What SIGINT and SIGHUP make a running solver do (BVLC's signal_handler.cpp)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from caffe.solver import SNAPSHOT, STOP

EFFECTS = {"stop": STOP, "snapshot": SNAPSHOT, "none": None}


class SignalActions:
    """While entered, remembers the signals that come; called, returns the action of one and forgets it.

    Raises:
        ValueError: an effect that is not stop, snapshot or none.
    """

    def __init__(self, sigint_effect: str, sighup_effect: str):
        self._effects: dict[int, str | None] = {}
        for number, effect in ((signal.SIGINT, sigint_effect), (getattr(signal, "SIGHUP", None), sighup_effect)):
            if effect not in EFFECTS:
                raise ValueError(f'Invalid signal effect "{effect}" was specified; expected snapshot, stop or none')
            if number is not None:
                self._effects[number] = EFFECTS[effect]
        self._came: list[int] = []
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> SignalActions:
        for number in self._effects:
            self._before[number] = signal.signal(number, lambda came, frame: self._came.append(came))
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> str | None:
        while self._came:
            action = self._effects[self._came.pop(0)]
            if action:
                return action
        return None
