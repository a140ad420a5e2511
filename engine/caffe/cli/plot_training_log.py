"""`plot_training_log TYPE PICTURE LOG ...`: accuracy, loss or learning rate of trainings, drawn with matplotlib."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from atomic_writes.command_lines import Parser

from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.arguments import run
from caffe.cli.training_log import LOSS, Log, Row

# BVLC's chart types
CHARTS = [
    ("Test accuracy", "Iters"),
    ("Test accuracy", "Seconds"),
    ("Test loss", "Iters"),
    ("Test loss", "Seconds"),
    ("Train learning rate", "Iters"),
    ("Train learning rate", "Seconds"),
    ("Train loss", "Iters"),
    ("Train loss", "Seconds"),
]
DATES = {"svg": ["Date"], "pdf": ["CreationDate"]}  # metadata that say when a picture was made
_COLUMNS = {"Iters": "NumIters", "Seconds": "Seconds"}


def curve(log: Log, chart: int, path: str) -> tuple[list[float], list[float]]:
    """(x, y) of a chart type. Raises ValueError where the log has nothing of it."""
    what, along = CHARTS[chart]
    rows, name = _source(log, what)
    points = [(row[_COLUMNS[along]], row[name]) for row in rows if name in row]
    if not points:
        raise ValueError(f"{path}: nothing to draw for chart type {chart}, {what}: expected such lines in the log")
    x, y = zip(*points, strict=True)
    return list(x), list(y)


def _source(log: Log, what: str) -> tuple[list[Row], str]:
    """The rows and the column of a quantity. Of a test's outputs, the accuracy is the first with `acc` in its name,
    the loss the first with `loss` in it, or BVLC's places, #0 and #1, where no name says it."""
    if what == "Train loss":
        return log.losses, LOSS
    if what == "Train learning rate":
        return log.train, "LearningRate"
    outputs = list(log.test[0])[3:] if log.test else []
    sought, place = ("acc", 0) if what == "Test accuracy" else ("loss", 1)
    named = [name for name in outputs if sought in name.lower()]
    return log.test, (named or outputs[place : place + 1] or [""])[0]


def _plot(args: argparse.Namespace) -> None:
    check_folder(args.picture)
    curves = [(path, *curve(Log(path), args.chart, path)) for path in args.logs]
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "plot_training_log needs the package matplotlib, which is not installed: pip install matplotlib"
        ) from None
    figure = Figure()
    known = figure.canvas.get_supported_filetypes()
    if Path(args.picture).suffix.removeprefix(".") not in known:
        raise ValueError(f"{args.picture}: expected a picture that ends in one of {', '.join(sorted(known))}")
    axes = figure.subplots()
    what, along = CHARTS[args.chart]
    for path, x, y in curves:
        axes.plot(x, y, label=Path(path).name, marker="." if len(x) < 50 else "")
    axes.set_xlabel(along)
    axes.set_ylabel(what)
    axes.set_title(f"{what} vs. {along}")
    axes.legend()
    content, kind = io.BytesIO(), Path(args.picture).suffix.removeprefix(".")
    with matplotlib.rc_context({"svg.hashsalt": "caffe"}):  # the same log twice: the same file
        figure.savefig(content, format=kind, metadata=dict.fromkeys(DATES.get(kind, ())))
    write_atomic(args.picture, content.getbuffer())


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    kinds = "\n".join(f"  {number}: {what}  vs. {along}" for number, (what, along) in enumerate(CHARTS))
    parser = Parser(
        prog="plot_training_log",
        description=f"Supported chart types:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("chart", type=int, choices=range(len(CHARTS)), help="a number from the list above")
    parser.add_argument("picture", help="where the picture goes (.png, .pdf, .svg)")
    parser.add_argument("logs", nargs="+", help="training logs")
    return run(parser, _plot, arguments)


if __name__ == "__main__":
    sys.exit(main())
