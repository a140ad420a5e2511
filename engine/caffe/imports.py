"""Imports of modules that bring torch, without the garbage collections that would go through torch's objects again and
again and find nothing. They take a seventh of the time that torch's import takes, and half as long again when the
process ends."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType

from atomic_writes import ending


def import_module(name: str) -> ModuleType:
    """importlib.import_module(name). The collector is off meanwhile, and afterwards as it was before.

    In a command it looks no more at what there is by then. In a program it does: its objects may wait for that to
    close their files.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if enabled:
            if ending.is_command():
                gc.freeze()
            elif not gc.get_freeze_count():  # nothing that the program itself has frozen
                gc.freeze()
                gc.unfreeze()  # all objects are in the oldest generation now, which is looked through rarely
            gc.enable()
