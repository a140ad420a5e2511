"""How commands name an index: its folder, or the run that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dhn.layout import target_command
from dhn.search.generation import FACTS
from dhn.search.items import SearchError

if TYPE_CHECKING:
    import argparse

    from dhn.runs.folder import AnyRun

NAME = "index"  # of the folder in a run's folder


def add_index(parser: argparse.ArgumentParser) -> None:
    """Add what names an index to a command line: INDEX, and the options that make a data set's name a run."""
    add_run(parser, "index", metavar="INDEX", help="folder of an index or of its run, or the name of a run's data set")


def add_run(parser: argparse.ArgumentParser, dest: str, **words: Any) -> None:
    """Add a positional argument, a folder or the name of a data set, and the options that make the name a run."""
    parser.add_argument(dest, **words)
    parser.add_argument("--variant", default="dhn", help="of the data set's run; default: dhn")
    parser.add_argument("--bits", type=int, default=48, help="of the data set's run; default: 48")
    parser.add_argument("--net", help="of the data set's run; default: the data set's")
    parser.add_argument("--seed", type=int, default=1, help="of the data set's run; default: 1")


def find_run(options: argparse.Namespace, name: str) -> AnyRun:
    """The run that a command line of add_run names: by its folder, or by data set and options.

    Raises RunError, ValueError where there is none.
    """
    from dhn.runs.by_hand import open_run  # and with it Caffe
    from dhn.runs.command_line import run_of
    from dhn.runs.folder import RunError

    if Path(name).is_dir():
        return open_run(Path(name))
    options.dataset = name
    run = run_of(options)
    if not run.folder.is_dir():
        folder = run.display_path(run.folder)
        raise RunError(f"{folder}: expected the folder of a run, found nothing; {run.make_command('train')}")
    return open_run(run.folder)


def find_index(options: argparse.Namespace) -> Path:
    """The folder of the index that a command line of add_index names. Raises SearchError, RunError, ValueError."""
    folder = Path(options.index)
    if folder.is_dir():
        return folder / NAME if (folder / NAME / FACTS).exists() else folder
    if folder.exists() or (len(folder.parts) > 1 and folder.suffix != ".json"):  # else a recipe
        found = "a file" if folder.exists() else "nothing"
        raise SearchError(f"{folder}: expected the folder of an index, found {found}")
    run = find_run(options, options.index)
    if not (run.folder / NAME / FACTS).exists():
        named = {name: getattr(options, name) for name in ("variant", "bits", "net")}
        remedy = target_command("index", options.index, **named, seed=None if options.seed == 1 else options.seed)
        raise SearchError(f"{run.display_path(run.folder)}: expected its index, found none; run: {remedy}")
    return run.folder / NAME
