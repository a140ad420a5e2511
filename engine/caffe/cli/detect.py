"""`detect INPUT OUTPUT --model_def --pretrained_model --mean_file ...`: a windowed detector over images (R-CNN).

INPUT is a .csv with the columns filename, ymin, xmin, ymax, xmax (--crop_mode list), or a .txt with a file name a line
(--crop_mode selective_search). OUTPUT is a .csv with a column for each class, or else an HDF5 of a pandas DataFrame.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from atomic_writes.command_lines import Parser

import caffe
from caffe.atomic_files import check_folder, write_atomic
from caffe.cli.arguments import run
from caffe.cli.images import add_flags, check_files, set_mean, steps, use_device

FARTHEST = 1 << 31  # pixels; no coordinate reaches them
COORD_COLS = ["ymin", "xmin", "ymax", "xmax"]


def windows(path: str) -> list[tuple[str, list[list[int]]]]:
    """(image file, its windows) of each image of a .csv, in the order they first appear.

    Raises:
        ValueError: a column is missing, or a coordinate is no number.
    """
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file)
        found: dict[str, list[list[int]]] = {}
        for row in _rows(path, reader):
            try:
                window = [int(float(row[name])) for name in COORD_COLS]
            except (TypeError, ValueError, OverflowError):
                window = [FARTHEST]
            if max(map(abs, window)) >= FARTHEST:
                raise ValueError(f"{path}:{reader.line_num}: expected four numbers of pixels, found {row}")
            found.setdefault(row["filename"], []).append(window)
    return list(found.items())


def _rows(path: str, reader: csv.DictReader) -> Iterator[dict[str, Any]]:
    try:
        missing = {"filename", *COORD_COLS} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path}: expected the columns filename, {', '.join(COORD_COLS)}; {sorted(missing)} missing"
            )
        yield from reader
    except csv.Error as error:
        raise ValueError(f"{path}: is no table of windows behind line {reader.line_num}: {error}") from None


def _save(path: str, detections: list[dict]) -> None:
    if path.lower().endswith("csv"):
        classes = [f"class{number}" for number in range(np.size(detections[0]["prediction"]))] if detections else []
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["filename", *COORD_COLS, *classes])
        for one in detections:
            writer.writerow([one["filename"], *one["window"], *np.ravel(one["prediction"]).tolist()])
        write_atomic(path, text.getvalue().encode(errors="surrogateescape"))
        return
    import pandas

    frame = pandas.DataFrame([{"prediction": one["prediction"], "filename": one["filename"]} for one in detections])
    frame = frame.set_index("filename")
    frame[COORD_COLS] = np.array([one["window"] for one in detections])
    frame.to_hdf(path, key="df", mode="w")


def _check_output(path: str) -> None:
    """Raise before the work where the result could not be written."""
    check_folder(path)
    if path.lower().endswith("csv"):
        return
    try:
        import pandas  # noqa: F401
        import tables  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"writing {path} as an HDF5 of a DataFrame needs the packages pandas and tables: {error}. "
            "pip install pandas tables, or let OUTPUT end in .csv"
        ) from None


def _detect(args: argparse.Namespace) -> None:
    _check_output(args.output_file)
    check_files(args)
    use_device(args.gpu)
    detector = caffe.Detector(args.model_def, args.pretrained_model, **steps(args))
    set_mean(detector, args.mean_file, by_channel=True)  # windows have no place of their own in a mean image
    detector.configure_crop(args.context_pad)
    start = time.perf_counter()
    print("Loading input...")
    suffix = Path(args.input_file).suffix.lower()
    if suffix not in (".txt", ".csv") or not Path(args.input_file).is_file():
        raise ValueError(f"{args.input_file}: Unknown input file type: expected a .txt or .csv file there")
    if args.crop_mode == "list":
        if suffix != ".csv":
            raise ValueError(f"{args.input_file}: --crop_mode list needs a .csv with windows")
        detections = detector.detect_windows(windows(args.input_file))
    else:
        if suffix == ".txt":
            names = os.fsdecode(Path(args.input_file).read_bytes()).split("\n")
        else:
            names = [name for name, _ in windows(args.input_file)]
        detections = detector.detect_selective_search([name.strip() for name in names if name.strip()])
    print(f"Processed {len(detections)} windows in {time.perf_counter() - start:.3f} s.")
    start = time.perf_counter()
    _save(args.output_file, detections)
    print(f"Saved to {args.output_file} in {time.perf_counter() - start:.3f} s.")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = Parser(prog="detect", description=__doc__)
    parser.add_argument("input_file", help="Input txt/csv filename. If .txt, must be list of filenames")
    parser.add_argument("output_file", help="Output h5/csv filename. Format depends on extension")
    add_flags(parser)
    parser.add_argument(
        "--crop_mode", choices=("list", "selective_search"), default="selective_search", help="How windows are found"
    )
    parser.add_argument("--context_pad", type=int, default=16, help="Amount of surrounding context in input window")
    return run(parser, _detect, arguments)


if __name__ == "__main__":
    sys.exit(main())
