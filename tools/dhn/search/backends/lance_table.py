"""The table of an index in LanceDB as Arrow has it: its fields, the items as record batches, the codes of a result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from dhn.search import build, ranking

if TYPE_CHECKING:
    import pyarrow


def schema_of(bits: int, columns: int, about: dict) -> pyarrow.Schema:
    """Fields of the items: codes of so many bits, label columns; about: as lance.Lance has it."""
    import pyarrow as pa

    labels = pa.field("labels", pa.list_(pa.int32()), metadata={"columns": str(columns)})
    fields = [
        pa.field("number", pa.int64()), pa.field("bits", pa.list_(pa.uint8(), 8 * -(-bits // 64))),
        pa.field("codes", pa.list_(pa.float32(), bits)), labels,
        pa.field("key", pa.large_binary()), pa.field("path", pa.large_binary()),
    ]  # fmt: skip
    return pa.schema(fields, metadata={"dhn": json.dumps(about)})


def batches(part: build.Part, first: int, schema: pyarrow.Schema) -> pyarrow.RecordBatchReader:
    """Items as record batches, their numbers from `first` on."""
    import pyarrow as pa

    def generate() -> Iterator[pa.RecordBatch]:
        for begin in range(0, len(part), build.ROWS):
            rows = slice(begin, min(begin + build.ROWS, len(part)))
            codes = np.ascontiguousarray(part.codes[rows])
            labels = np.asarray(part.labels[rows])
            known = (labels >= 0).all(1) & (labels.shape[1] > 0)
            carried = (labels > 0) & known[:, None]
            ends = np.append(0, np.cumsum(carried.sum(1))).astype(np.int32)
            columns = np.nonzero(carried)[1].astype(np.int32)
            yield pa.record_batch(
                [
                    pa.array(np.arange(rows.start, rows.stop) + first),
                    _fixed(ranking.pack(codes).view(np.uint8)),
                    _fixed(codes),
                    pa.ListArray.from_arrays(pa.array(ends), pa.array(columns), mask=pa.array(~known)),
                    *(pa.array(_each(texts[rows]), pa.large_binary()) for texts in (part.keys, part.paths)),
                ],
                schema=schema,
            )

    return pa.RecordBatchReader.from_batches(schema, generate())


def _fixed(rows: np.ndarray) -> pyarrow.FixedSizeListArray:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])


def _each(texts: Any) -> list[bytes]:
    return [texts.bytes_at(place) for place in range(len(texts))]


def real_codes(found: pyarrow.Table, bits: int) -> np.ndarray:
    """Real-valued codes (n, K) of a table."""
    column = found["codes"].combine_chunks()
    return column.flatten().to_numpy().reshape(-1, bits)
