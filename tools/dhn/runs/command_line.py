"""The command line that names a run, which several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import net
import run_settings
from atomic_writes.command_lines import Parser

from dhn.datasets import recipes
from dhn.runs.by_hand import HandRun, open_run
from dhn.runs.folder import Run


def seed(text: str) -> int:
    """A type for argparse: the seed of random numbers."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {2**32 - 1}, found {text}")
    return value


def run_parser(
    description: str, nargs: str | None = None, variants: Iterable[str] = net.VARIANTS, gpu: bool = True
) -> argparse.ArgumentParser:
    """A command line that names a run of one of these variants; with nargs "?" the data set may be left out.

    gpu: with --gpu, for a command that computes.
    """
    parser = Parser(description=description)
    parser.add_argument("dataset", nargs=nargs, help=f"{', '.join(net.DATASETS)}, or the path of a recipe")
    parser.add_argument("--variant", choices=list(variants), default="dhn", help="default: dhn")
    parser.add_argument("--bits", type=int, default=48, help="length of the codes (default: 48)")
    parser.add_argument("--net", choices=list(net.NETS), help="default: the data set's")
    parser.add_argument("--seed", type=seed, default=1, help="of weights, dropout, images' order (default: 1)")
    if gpu:
        parser.add_argument(
            "--gpu", type=int, metavar="N", help="compute on this GPU; default: as the solver says, CPU"
        )
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --set to a command line."""
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="otherwise than in the tables of prototxt/: base_lr=0.01, batch_size=32, ...; may stand several times",
    )


def settings_typed(options: argparse.Namespace) -> dict[str, Any] | None:
    """The settings that --set names; None where it names none. Raises ValueError for one that does not exist."""
    return run_settings.parse(options.set) or None


def run_of(options: argparse.Namespace) -> Run:
    """The run that a command line of `run_parser` names. Raises ValueError for a data set that does not exist."""
    dataset = options.dataset if options.dataset in net.DATASETS else recipes.find(options.dataset).name
    other = None if options.net == net.nets_of(dataset)[0] else options.net
    bits = 0 if options.variant == net.PRETRAINING else options.bits
    return Run(dataset, options.variant, bits, net=other, seed=options.seed)


def parser_of_scored_runs(description: str, gpu: bool = True) -> argparse.ArgumentParser:
    """A command line that names a run by data set, variant, bits, net and seed, or by its folder."""
    parser = run_parser(description, nargs="?", gpu=gpu)
    parser.add_argument("--run", metavar="FOLDER", type=Path, help="the run in this folder, made by hand or not")
    return parser


def run_named(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, Run | HandRun]:
    """What a command line of `parser_of_scored_runs` says, and the run that it names. Raises ValueError, RunError."""
    options = parser.parse_args(arguments)
    if options.run is None:
        if options.dataset is None:
            parser.error("expected a data set, or --run FOLDER")
        return options, run_of(options)
    others = ["dataset", "variant", "bits", "net", "seed"]
    if typed := [name for name in others if getattr(options, name) != parser.get_default(name)]:
        parser.error(f"--run FOLDER says which run; {', '.join(typed)} would say it again")
    return options, open_run(options.run)
