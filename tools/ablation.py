"""The paper's ablation on a data set: variants x bits x seeds, trained, scored, in one table with mean and spread.

    python tools/ablation.py fashion_mnist [--variants dhn_b dhn dhn_q dhn_e] [--bits 12 24 32 48] [--seeds 1 2 3]
        [--net alexnet] [--weights W.caffemodel] [--gpu 0] [--set base_lr=0.01 ...]

Each cell is a run as `make train` and `make score` make it, in its own folder; DHN-B is the net of DHN ranked by its
real-valued codes and needs no training of its own. ITQ on pixels stands next to them, as it has the same seeds. A cell
that is finished is not run again, so a table that was cut off goes on where it stopped. A cell that fails is named,
and the others are made.

--set is that of tools/train.py, for every cell (lambda: for those that have one). Without it, a run that was trained
with settings of its own stays as it is, and the table says so.

Writes runs/<dataset>-ablation/: cells.csv (a row a cell), ablation.csv (mean and spread), ablation.md, ablation.png,
ablation.html. All are ranked and measured alike: Hamming distance (DHN-B: dot product), AP at the hits in the top R of
the data set's split. Where the order of ties decides a MAP, as with codes that collapsed, its expected value counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, pairwise, product
from pathlib import Path

import dhn  # first: it says so where the project is not installed

# isort: split
import matplotlib
import net
import run_settings
from atomic_writes import locks, make_folder
from atomic_writes.command_lines import Parser
from dhn.experiments import baselines, scored_run
from dhn.experiments.measure import LENGTHS, MEASURED, is_measured, mean_and_spread, measure, quoted, ranks
from dhn.files import read_json, write_atomic, write_csv, write_json, write_text
from dhn.pages import plots
from dhn.pages.page import markdown, terminal, write_page
from dhn.progress import console
from dhn.published import method, title
from dhn.runs import command_line, training
from dhn.runs.folder import ROOT, Run, RunError, split_caveat
from dhn.runs.prototxts import Settings
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ORDER = ("DHN-B", "DHN", "DHN-Q", "DHN-E", "ITQ")  # the paper's, best first; the first two may be equal
SEEDS = (1, 2, 3)
MARKERS = ("D", "o", "s", "^", "x")
COLOURS = (plots.THREE, plots.ONE, plots.TWO, plots.FOUR, plots.FAINT)
PRINTED = ("#6f42c1", "#1f6feb", "#b3540b", "#0f766e", "#59636e")  # the same, where there is no page to take them from


def cell(run: Run, weights: str | None, gpu: int | None, folder: Path, settings: Settings | None = None) -> dict:
    """Bring a cell to its measure: train, score, measure; what is there of it is left. Returns the keys of MEASURED,
    and `settings`, what it was trained with otherwise than the recipe, as typed.

    settings: for its training, None for those that it has. dhn_b is trained as dhn. Raises RunError or ValueError where
    that fails.
    """
    real = run.variant == "dhn_b"
    trained = Run(run.dataset, "dhn" if real else run.variant, run.bits, run.root, run.net, run.seed)
    if settings and not net.VARIANTS.get(trained.variant, ("", True))[1]:
        settings = {name: value for name, value in settings.items() if name != "lambda"}
    training.train(trained, weights=weights, gpu=gpu, settings=settings)
    scored_run.score(trained, gpu)
    record = trained.record()
    own = record.get("settings") or {}
    origin = {"weights": record["weights_sha256"], "split": record.get("split"), "real": real}
    path = folder / "cells" / f"{run.name}.json"
    facts = read_json(path)
    if facts.get("made") == origin and is_measured(facts):
        return {**{key: facts[key] for key in MEASURED}, "settings": run_settings.typed(own)}
    facts = measure(trained.folder, real, ranks(trained.data))
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"dataset": run.dataset, "variant": run.variant, "bits": run.bits, "seed": run.seed}
    about |= {"net": net.recipe(run.dataset, run.net).net, "settings": own}
    write_json(path, {**about, **facts, "made": origin})
    return {**facts, "settings": run_settings.typed(own)}


def cells(
    runs: Sequence[Run], weights: str | None, gpu: int | None, folder: Path, settings: Settings | None = None
) -> Iterator[dict]:
    """A row for each run: variant, bits, seed, settings and the keys of MEASURED, None where it failed, which is
    printed."""
    for number, run in enumerate(runs, 1):
        console.rule(f"cell {number} of {len(runs)}: {run.name}")
        row = {"variant": method(run.variant), "bits": run.bits, "seed": run.seed}
        try:
            row |= cell(run, weights, gpu, folder, settings)
        except (RunError, ValueError, OSError) as error:
            console.print(f"{run.name} failed: {dhn.sentence(error)}")
            row |= dict.fromkeys([*MEASURED, "settings"])
        yield row


def itq(dataset: str, bits: Sequence[int], seeds: Sequence[int], root: Path) -> list[dict]:
    """The rows of ITQ on pixels."""
    features, about = baselines.load_features(dataset, root=root)
    rows = []
    for seed in seeds:
        for row in baselines.baselines(dataset, features, about, ["itq"], bits, seed, root):
            measures = {key: row[key] for key in ("bits", "seed", *MEASURED)}
            rows.append({"variant": row["method"], **measures, "settings": None})
    return rows


def summary(rows: Sequence[dict]) -> list[dict]:
    """A row for each variant and length: variant, bits, seeds (finished cells), mean, spread, least, most.

    mean and spread (standard deviation over seeds, n - 1) of the MAPs to quote; least and most: over the seeds' tie
    ranges. None where there is nothing to say it of.
    """
    averages = []
    for variant, bits in dict.fromkeys((row["variant"], row["bits"]) for row in rows):
        done = [row for row in rows if (row["variant"], row["bits"]) == (variant, bits) and row["map"] is not None]
        means = [mean for row in done if (mean := quoted(row)) is not None]
        mean, spread = mean_and_spread(means) if means else (None, None)
        averages.append(
            {
                "variant": variant,
                "bits": bits,
                "seeds": len(done),
                "mean": mean,
                "spread": spread,
                "least": min((row["map_low"] for row in done), default=None),
                "most": max((row["map_high"] for row in done), default=None),
            }
        )
    return averages


def order(averages: Sequence[dict]) -> list[str]:
    """Where the paper's order holds and where not, in sentences: DHN-B >= DHN > DHN-Q > DHN-E, all above ITQ."""
    sentences = []
    by_cell = {(row["variant"], row["bits"]): row for row in averages if row["mean"] is not None}
    pairs = dict.fromkeys([*pairwise(ORDER), *((better, "ITQ") for better in ORDER[:-1])])
    for better, worse in pairs:
        lengths = [bits for name, bits in by_cell if name == better and (worse, bits) in by_cell]
        broken = []
        for bits in lengths:
            one, other = by_cell[better, bits], by_cell[worse, bits]
            holds = one["mean"] >= other["mean"] if (better, worse) == ORDER[:2] else one["mean"] > other["mean"]
            if not holds:
                inside = other["mean"] - one["mean"] <= (one["spread"] or 0) + (other["spread"] or 0)
                note = ", a difference within the spread of the seeds" if inside else ""
                broken.append(f"at {bits} bits ({one['mean']:.4f} and {other['mean']:.4f}{note})")
        sign = ">=" if (better, worse) == ORDER[:2] else ">"
        if broken:
            sentences.append(f"The paper's {better} {sign} {worse} does not hold here {'; '.join(broken)}.")
        elif lengths:
            sentences.append(f"The paper's {better} {sign} {worse} holds here at {', '.join(map(str, lengths))} bits.")
    return sentences


def in_order(names: Iterable[str]) -> list[str]:
    """The variants each once, the paper's in its order, others after them."""
    names = set(names)
    return [*(name for name in ORDER if name in names), *sorted(names - set(ORDER))]


def remarks(rows: Sequence[dict]) -> list[str]:
    """Why a cell's MAP means little, in a sentence for each such cell; and which were trained with settings of their
    own, in a sentence for each that there are."""
    names = [f"{row['variant']}, {row['bits']} bits, seed {row['seed']}" for row in rows]
    sentences = [f"{name}: {row['note']}." for name, row in zip(names, rows, strict=True) if row["note"]]
    own: dict[str, list[str]] = {}
    for name, row in zip(names, rows, strict=True):
        own.setdefault(row.get("settings") or "", []).append(name)
    return sentences + [f"Trained with {settings}: {'; '.join(of)}." for settings, of in own.items() if settings]


def grid(averages: Sequence[dict]) -> tuple[list[str], list[list[str]]]:
    """The summary as columns and rows of text: a row a variant, a column a length."""
    lengths = sorted({row["bits"] for row in averages})
    names = in_order(row["variant"] for row in averages)
    by_cell = {(row["variant"], row["bits"]): row for row in averages}
    rows = []
    for name in names:
        texts = []
        for bits in lengths:
            row = by_cell.get((name, bits))
            if row is None or row["mean"] is None:
                texts.append("-")
            else:
                spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
                texts.append(f"{row['mean']:.4f}{spread}")
        rows.append([name, *texts])
    return ["MAP", *(f"{bits} bits" for bits in lengths)], rows


def draw(axes: Axes, averages: Sequence[dict], colours: Sequence[str] = COLOURS) -> None:
    """Mean MAP over the length of codes, a line a variant, bars one standard deviation over the seeds."""
    names = in_order(row["variant"] for row in averages)
    for name, (marker, colour) in zip(names, styles(averages, colours), strict=True):
        rows = sorted((row for row in averages if row["variant"] == name and row["mean"] is not None), key=_bits)
        if rows:
            bits, means = [row["bits"] for row in rows], [row["mean"] for row in rows]
            spread = [row["spread"] or 0 for row in rows]
            axes.errorbar(bits, means, spread, label=name, color=colour, marker=marker, markersize=5, capsize=3)
    axes.set_xticks(sorted({row["bits"] for row in averages}))
    axes.set_xlabel("bits")
    axes.set_ylabel("MAP")
    if axes.lines:
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(ORDER), columnspacing=1)


def styles(averages: Sequence[dict], colours: Sequence[str]) -> list[tuple[str, str]]:
    """Marker and colour of each variant: those of ORDER have theirs, others what is left, in turn."""
    own = dict(zip(ORDER, zip(MARKERS, colours, strict=True), strict=True))
    others = cycle(product("vPX*", colours))
    return [own[name] if name in own else next(others) for name in in_order(row["variant"] for row in averages)]


def _bits(row: dict) -> int:
    return row["bits"]


def picture(path: Path, averages: Sequence[dict]) -> None:
    """The plot as a PNG on white, for a README."""
    with matplotlib.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False}):
        figure = Figure((6, 3.6), layout="constrained", dpi=150)
        draw(figure.add_subplot(), averages, PRINTED)
        write_atomic(path, lambda stream: figure.savefig(stream, format="png", metadata={"Software": None}))


def write(dataset: str, rows: Sequence[dict], folder: Path, wanted: int, caveat: str = "") -> list[str]:
    """Write all files of the table into `folder`; returns the sentences about the order, and about single cells.

    caveat: of the split, as that query images are also in the database; stands first.
    """
    averages = summary(rows)
    sentences, (columns, texts) = order(averages), grid(averages)
    some = next((row for row in rows if row["map"] is not None), None)
    about = [
        f"Mean and standard deviation of MAP over seeds ({wanted} wanted); ties in database order, expected over their "
        "orders where these decide. DHN-B is DHN ranked by real-valued codes, ITQ stands on pixels."
    ]
    if some:
        about[-1] += f" R = {some['R']:,}, {some['queries']:,} queries, {some['database']:,} database images."
    if caveat:
        about.insert(0, f"{caveat}.")
    sentences += remarks(rows)
    short = [row for row in averages if row["seeds"] < wanted]
    for row in short:
        sentences.append(f"{row['variant']}, {row['bits']} bits: {row['seeds']} of {wanted} cells are finished.")
    name = f"Ablation on {title(dataset)}"
    write_csv(folder / "cells.csv", rows)
    write_csv(folder / "ablation.csv", averages)
    text = "\n".join([f"{name}\n", markdown(columns, texts), *about, "", *(f"- {line}" for line in sentences), ""])
    write_text(folder / "ablation.md", text)
    picture(folder / "ablation.png", averages)
    plot = plots.drawn(lambda axes: draw(axes, averages), f"{name}: MAP over bits, a line a variant")
    write_page(folder / "ablation.html", name, columns, texts, about, {"Findings": sentences}, plot)
    console.print(terminal("\n".join(filter(None, [name, caveat])), about[-1], columns, texts))
    for line in sentences:
        console.print(line, markup=False)
    return sentences


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser(description="Train and score variants x bits x seeds; one table.")
    parser.add_argument("dataset", help=f"{', '.join(net.DATASETS)}, or the path of a recipe")
    parser.add_argument("--variants", nargs="+", choices=list(net.VARIANTS), default=["dhn", "dhn_b", "dhn_q", "dhn_e"])
    parser.add_argument("--bits", nargs="+", type=int, default=list(LENGTHS), help="default: 12 24 32 48")
    parser.add_argument("--seeds", nargs="+", type=command_line.seed, default=list(SEEDS), help="default: 1 2 3")
    parser.add_argument("--net", choices=list(net.NETS), help="default: the data set's")
    parser.add_argument("--weights", metavar="W.caffemodel", help="weights to start from")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute on this GPU; default: as the solver says")
    command_line.add_settings(parser)
    options = parser.parse_args(arguments)
    try:
        options.variant, options.seed = "dhn", 1
        first = command_line.run_of(argparse.Namespace(**{**vars(options), "bits": options.bits[0]}))
        chosen = product(options.seeds, options.bits, options.variants)  # a whole table of one seed comes first
        settings = command_line.settings_typed(options)
        runs = [Run(first.dataset, variant, bits, ROOT, first.net, seed) for seed, bits, variant in chosen]
        folder = ROOT / "runs" / (f"{first.dataset}-ablation" + (f"-{first.net}" if first.net else ""))
        make_folder(folder)
        with locks.hold(folder / "ablation.csv"):
            rows = itq(first.dataset, options.bits, options.seeds, ROOT)
            trained = list(cells(runs, options.weights, options.gpu, folder, settings))
            caveat = split_caveat(read_json(ROOT / "data" / first.dataset / "split.json"))
            write(first.dataset, [*trained, *rows], folder, len(options.seeds), caveat)
    except (RunError, ValueError, OSError) as error:
        print(f"ablation: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    console.print(
        f"wrote {folder.relative_to(ROOT)}/: cells.csv, ablation.csv, ablation.md, ablation.png, ablation.html"
    )
    if failed := sum(row["map"] is None for row in trained):
        print(f"ablation: {failed} of {len(trained)} cells failed; the reasons stand above", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(dhn.run(main))
