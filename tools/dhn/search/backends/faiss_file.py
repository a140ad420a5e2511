"""An index as a file that faiss reads, for programs that search with faiss: an IndexBinaryFlat.

The id of an item is its row in the codes, from 0. A code has 8 W bytes, W = ceil(bits / 64): bit k is bit k % 8 of byte
k // 8, and the bits behind the last are 0. A query for it, and the answer:

    bits = numpy.packbits(codes >= 0, axis=1, bitorder="little")
    queries = numpy.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    distances, ids = faiss.read_index_binary(path).search(queries, 100)

faiss breaks ties of the distance by id.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import numpy as np

from dhn.files import write_atomic
from dhn.search import build, ranking
from dhn.search.items import Items, SearchError


def write(path: str | os.PathLike, items: Items) -> None:
    """Write the codes of items, atomically. Raises SearchError without faiss and for codes that are not finite."""
    try:
        import faiss
    except ImportError:
        raise SearchError(
            f"{os.fspath(path)}: the backend faiss is not installed here; run: pip install 'dhn-caffe-toolkit[faiss]'"
        ) from None
    codes = build.check_items(items).codes
    index = faiss.IndexBinaryFlat(64 * -(-codes.shape[1] // 64))
    for begin in range(0, len(codes), build.ROWS):
        index.add(np.ascontiguousarray(ranking.pack(codes[begin : begin + build.ROWS]).view(np.uint8)))

    def write_index(stream: BinaryIO) -> None:
        faiss.write_index_binary(index, faiss.PyCallbackIOWriter(stream.write))  # type: ignore[attr-defined]  # its types lack it

    write_atomic(path, write_index)
