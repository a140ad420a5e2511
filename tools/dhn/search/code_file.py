"""A file of codes for an index or for queries: labels and names are read where it has them."""

from __future__ import annotations

import numpy as np

from dhn.codes import files as code_files
from dhn.codes.array_files import CodesError, open_arrays, split


def read_codes(
    path: str, codes_are: str | None, labels_are: str | None
) -> tuple[np.ndarray, np.ndarray | None, list[str] | None, list[str]]:
    """Codes (N, K), labels (N, C) or None, names (N) or None of a file, and remarks.

    path: FILE or FILE:VARIABLE. codes_are, labels_are: as of codes.files.read. Raises CodesError.
    """
    name, variable = split(path)
    file = open_arrays(name)
    try:
        if variable is None and {"codes", "labels"} <= set(file.shapes):
            side = code_files.read(path, codes_are=codes_are, labels_are=labels_are)
            values, labels, notes = side.codes, side.labels, side.notes
        else:
            threshold = code_files.parse_meaning(codes_are)[1]
            raw, labels = file.read(file.name("codes", variable), "codes"), None
            if raw.ndim != 2:
                raise CodesError(f"{name}: expected codes (N, bits), a row an item, found {raw.shape}")
            values, note = code_files.signs(raw, codes_are, threshold, name)
            notes = [note] if note else []
    except CodesError as error:
        text = str(error).replace("with --codes ", "with --codes-are ").replace("with --labels", "with --labels-are")
        raise CodesError(text) from None
    names = [str(each) for each in file.load("names")] if "names" in file.shapes else None
    if labels is not None and (labels < 0).all():
        labels = None
    return values, labels, names, notes
