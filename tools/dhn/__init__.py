"""What the commands in tools/ share. Rooms, each of which imports only those before it:

layout, files, progress, published, compiled; download; datasets and weights; runs; codes; scoring; pages; experiments.
"""

from __future__ import annotations

import gc
import re
import resource
import sys
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from dhn import layout


def run(main: Callable[[], int]) -> int:
    """The exit status of a command, main()'s; 130, 143 or 129, after one line, where ^C, SIGTERM or SIGHUP ended it.

    Each command takes --max-memory SIZE, such as 4G: what needs more ends with a sentence. It is for files of others,
    a small one of which may unpack to a large one. Without it the machine's memory, or `ulimit`, is the limit.
    """
    from atomic_writes import ending  # not before it is known to be installed

    if not gc.isenabled():  # as `begin_imports` left it
        gc.freeze()  # what is imported is looked through no more, also when the process ends
        gc.enable()

    def command() -> int:
        limit = _take_max_memory(sys.argv)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            return main()
        except Exception as error:
            errors = sys.modules.get("caffe.errors")  # of a command that has imported Caffe
            if errors.is_memory_error(error) if errors else isinstance(error, MemoryError):
                reason = next(iter(str(error).splitlines()), "")
                if "not enough memory" not in reason:
                    words = " ".join(sys.argv[1:])
                    reason = f"not enough memory{reason and f': {reason}'}{words and f' ({words})'}"
                print(f"{Path(sys.argv[0]).stem}: {reason}", file=sys.stderr)
                return 1
            if not hasattr(error, "caffe_layer"):
                raise
            traceback.print_exc()  # of a Python layer: its code is the user's
            print(f"{Path(sys.argv[0]).stem}: {sentence(error)}", file=sys.stderr)
            return 1

    return ending.run(command)


def sentence(error: Exception) -> str:
    """What to tell the reader of an error: of one in a net's Python layer its name, class and file too."""
    return getattr(error, "caffe_layer", None) or str(error)  # as the engine notes it, caffe.errors.name_layer


def begin_imports(program: str) -> None:
    """What holds until `run`, while a command imports its modules: a signal ends it with a line, and there are no
    garbage collections, which would take a tenth of the time and find nothing."""
    from atomic_writes import ending

    ending.exit_at_signals(program)
    gc.disable()


def _take_max_memory(words: list[str]) -> int | None:
    """Bytes of the option --max-memory of a command line, which is removed from it; None without the option."""
    place = next((place for place, word in enumerate(words) if word.partition("=")[0] == "--max-memory"), None)
    if place is None:
        return None
    _, equals, text = words.pop(place).partition("=")
    if not equals:
        text = words.pop(place) if place < len(words) else ""
    size = re.fullmatch(r"([1-9][0-9]{0,11})([KMGT])", text, re.ASCII)
    if size is None:
        raise SystemExit(f"{Path(words[0]).stem}: --max-memory: expected a size such as 500M or 4G, found {text!r}")
    return int(size[1]) << 10 * (" KMGT".index(size[2]))


def _check_flat_modules() -> None:
    """Raise SystemExit where a module of python_layers/ or prototxt/ would be imported from elsewhere, or not at all.

    They are imported by flat names (labels, net, ...), which a package in site-packages or on PYTHONPATH may have too.
    """
    for folder in (layout.PYTHON_LAYERS, layout.PROTOTXT):
        for path in sorted(folder.glob("*.py")):
            spec = find_spec(path.stem)
            if spec is None:
                problem = "is not installed"
            elif Path(spec.origin or "").resolve() != path:
                problem = f"is not what is imported: {path.stem} comes from {spec.origin}"
            else:
                continue
            raise SystemExit(
                f"{layout.ROOT} {problem}: run `make test` or `pip install -e .` there, take the Python of that "
                "environment, and keep other modules of these names off its path"
            )


# In a checkout the environment must be the one that it was installed into. Of an installed package, `dhn` sees to it.
if not layout.INSTALLED:
    _check_flat_modules()

_main = getattr(sys.modules["__main__"], "__file__", None)
if _main is not None and Path(_main).resolve().parent == layout.COMMANDS:  # a command, which imports for seconds now
    begin_imports(Path(_main).stem)
