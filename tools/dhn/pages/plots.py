"""The plots of a report: SVG to stand inside a page, in the page's own colours and font.

Each function takes numbers and returns an <svg> element. Colours are written as CSS variables (--ink, --faint, --line,
--one, --two, --three, --four), so that one drawing serves a light and a dark page; text stays text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from dhn.runs.curves import Curves
from dhn.scoring.retrieval import headline

# a colour to draw with -> the CSS variable that takes its place
INK, FAINT, LINE, ONE, TWO, THREE, FOUR = (f"#0102{number:02x}" for number in range(7))
VARIABLES = {INK: "ink", FAINT: "faint", LINE: "line", ONE: "one", TWO: "two", THREE: "three", FOUR: "four"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.left": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "axes.prop_cycle": cycler(color=[ONE, TWO, THREE, FOUR]),
}
TOWERING = 10  # times the median
MOST_LEVELS = 5  # learning rates that are named one by one
SIZE = 4.9, 2.9  # inches: at 9 points the text is as large as a phone's page wants it


def drawn(draw: Callable[[Axes], object], label: str, size: tuple[float, float] = SIZE) -> str:
    """The <svg> of what draw(axes) draws; `label` says to those who do not see it what it shows."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": label}):
        figure = Figure(size, layout="constrained")
        draw(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(stream.getvalue(), label)


def inline(text: str, label: str) -> str:
    """A complete SVG file as an element of a page: no ids but those it refers to, the page's colours and font."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    opening = text[text.index('viewBox="') :].split('"')[1]
    label = label.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    text = re.sub(r"<svg.*?>", f'<svg viewBox="{opening}" role="img" aria-label="{label}">', text, count=1, flags=re.S)
    for colour, name in VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text).strip()


def map_ranges(runs: Sequence[tuple[str, dict]], published: Sequence[tuple[str, float]]) -> str:
    """MAPs to quote with the range that ties leave open, (name, scores) a row, over published ones, (name, MAP)."""
    rows = len(runs) + len(published)

    def draw(axes: Axes) -> None:
        for place, (_, scores) in enumerate(runs):
            axes.hlines(place, scores["map_low"], scores["map_high"], ONE, linewidth=5, alpha=0.35)
            _, value = headline(scores)
            if value is not None:
                axes.plot(value, place, "o", color=ONE, markersize=5)
                _beside(axes, max(scores["map_high"], value), place, f"{value:.3f}")
        for place, (_, value) in enumerate(published, len(runs)):
            axes.plot(value, place, "D", color=TWO, markersize=4.5, markerfacecolor="none", markeredgewidth=1.4)
            _beside(axes, value, place, f"{value:.3f}")
        axes.set_yticks(range(rows), [name for name, _ in (*runs, *published)])
        axes.tick_params("y", labelcolor=INK, length=0)
        axes.set_ylim(rows - 0.5, -0.5)
        left, right = axes.get_xlim()
        axes.set_xlim(max(left, 0), right + 0.16 * (right - left))
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("MAP")

    return drawn(draw, "MAP under each protocol, with its range over tie orders", (SIZE[0], 0.6 + 0.27 * rows))


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (7, 0), textcoords="offset points", va="center", color=INK)


def precision_recall(points: Sequence[dict], marked: int) -> str:
    """Precision over recall; a point is {radius, precision, recall} of a Hamming ball, radii up to `marked` named."""

    def draw(axes: Axes) -> None:
        recall, precision = ([point[key] for point in points] for key in ("recall", "precision"))
        axes.plot(recall, precision, "-o", color=ONE, markersize=3)
        for point in points:
            if point["radius"] <= marked:
                place = point["recall"], point["precision"]
                name = f"radius {point['radius']}" if point["radius"] == marked else str(point["radius"])
                axes.annotate(name, place, (5, 4), textcoords="offset points", color=FAINT)
        _unit(axes, "recall", "precision", both=True)

    return drawn(draw, "precision over recall, a point for each Hamming radius")


def precision_at(precisions: dict[int, dict]) -> str:
    """Precision among the N nearest over N; {N: {stable, expected}}."""

    def draw(axes: Axes) -> None:
        ranks = list(precisions)
        stable, expected = ([precisions[rank][key] for rank in ranks] for key in ("stable", "expected"))
        axes.plot(ranks, stable, "-o", markersize=3, label="ties in database order")
        axes.plot(ranks, expected, ":", label="expected over tie orders")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rank, _: f"{rank:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        _unit(axes, "N nearest", "precision")
        axes.legend(loc="lower left")

    return drawn(draw, "precision among the N nearest over N")


def _unit(axes: Axes, x: str, y: str, both: bool = False) -> None:
    axes.set_ylim(0, 1.04)
    if both:
        axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(x)
    axes.set_title(y, loc="left", color=FAINT)


def loss(curves: Curves) -> str:
    """The training's loss and outputs over iterations; a test net's outputs dashed, in their namesakes' colours.

    Where the first losses tower above the rest, the axis is logarithmic.
    """

    def draw(axes: Axes) -> None:
        outputs = [name for name in curves.columns() if name != "lr"]
        training = [name for name in outputs if not name.startswith("test ")]
        colours = dict(zip(training, (INK, ONE, TWO, THREE, FOUR), strict=False))
        for name in outputs:
            colour = colours.get(name.removeprefix("test "), FAINT)
            line: dict[str, Any] = (
                {"linestyle": (0, (3, 2)), "marker": "o", "markersize": 3} if name not in training else {}
            )
            axes.plot(*curves.series(name), color=colour, label=name.replace("_", " "), **line)
        values = np.array([value for name in outputs for value in curves.series(name)[1]])
        values = values[np.isfinite(values)]
        if values.size and values.min() > 0 and values.max() > TOWERING * np.median(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda iteration, _: f"{iteration:,.0f}"))
        axes.legend(ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1), handlelength=1.8)

    return drawn(draw, "loss over iterations", (SIZE[0], 3.2))


def learning_rate(curves: Curves) -> str:
    """The learning rate over iterations, its axis logarithmic."""

    def draw(axes: Axes) -> None:
        iterations, rates = curves.series("lr")
        axes.step(iterations, rates, where="post", color=ONE)
        if min(rates) > 0:
            axes.set_yscale("log")
            axes.set_ylim(min(rates) / 2, max(rates) * 2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        if len(levels := sorted(set(rates))) <= MOST_LEVELS:
            axes.set_yticks(levels)
        axes.set_xlabel("iteration")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda iteration, _: f"{iteration:,.0f}"))

    return drawn(draw, "learning rate over iterations", (SIZE[0], 1.7))


def code_values(codes: np.ndarray, bins: int = 80) -> str:
    """How often a code takes which value, (N, K) in -1 to 1: the quantization loss drives them to the two ends."""

    def draw(axes: Axes) -> None:
        limit = max(1.0, float(np.abs(codes).max()))
        counts, edges = np.histogram(codes, bins, (-limit, limit))
        axes.stairs(counts / codes.size, edges, fill=True, color=ONE, alpha=0.8)
        axes.set_xlim(-limit * 1.03, limit * 1.03)
        axes.set_xlabel("value of a code before its sign is taken")
        axes.set_title("share of all values", loc="left", color=FAINT)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))

    return drawn(draw, "histogram of code values")


def bit_balance(shares: Sequence[float]) -> str:
    """For each bit, the share of items whose bit is +1, as a bar from the balanced half."""

    def draw(axes: Axes) -> None:
        bits = np.arange(1, len(shares) + 1)
        axes.bar(bits, np.asarray(shares) - 0.5, bottom=0.5, color=ONE, alpha=0.8, width=0.75)
        axes.axhline(0.5, color=FAINT, linewidth=0.8)
        axes.set_ylim(0, 1)
        axes.set_xlim(0.3, len(shares) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(False, axis="x")
        axes.set_xlabel("bit")
        axes.set_title("share of +1", loc="left", color=FAINT)

    return drawn(draw, "share of +1 in each bit")
