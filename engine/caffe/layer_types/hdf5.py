"""HDF5Data and HDF5Output: a net's arrays from and to HDF5 files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from caffe import device, glog, hdf5_files, memory_limit, parallel
from caffe.atomic_files import write_atomic_hdf5
from caffe.blob import Blob
from caffe.data import upload
from caffe.layer import Layer, register
from caffe.layer_types.data import SourceLayer
from caffe.proto import byte_strings, caffe_pb2

if TYPE_CHECKING:
    import h5py

_OTHER_CLASSES = ["TIME", "STRING", "BITFIELD", "OPAQUE", "COMPOUND", "REFERENCE", "VLEN", "ARRAY"]


def _reason(error: OSError) -> str:
    """Why a file cannot be opened, in the words of the system where it has some, and where relative paths begin."""
    return f"{os.strerror(error.errno) if error.errno else error} (seen from {os.getcwd()})"


def read_datasets(path: str, names: Sequence[str]) -> list[np.ndarray]:
    """The datasets `names` of the HDF5 file `path`, float32, with one first dimension.

    Raises:
        ValueError: no such file or dataset, datasets that hold no numbers or differ in their number of rows.
    """
    import h5py

    numbers = h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.ENUM  # classes of values; numpy's bool is an enum
    try:
        open(path, "rb").close()
    except OSError as error:
        raise ValueError(f"Failed opening HDF5 file: {path}: {_reason(error)}") from None
    arrays: list[np.ndarray] = []
    with hdf5_files.reading(path, "an HDF5 file") as file:
        for name in names:
            dataset = file.get(name)
            if not isinstance(dataset, h5py.Dataset):
                raise ValueError(
                    f"Failed to find HDF5 dataset {name} in {path}: a top reads the dataset of its name; "
                    f"the file has {', '.join(sorted(file)) or 'none'}"
                )
            kind = dataset.id.get_type().get_class()
            if kind not in numbers:
                classes = {getattr(h5py.h5t, each): f"H5T_{each}" for each in _OTHER_CLASSES}
                raise ValueError(
                    f"Unsupported datatype class of {name} in {path}: expected numbers, found {classes.get(kind, kind)}"
                )
            if not dataset.ndim:
                raise ValueError(f"{path}: Input must have at least 1 axis; dataset {name} is one value")
            if len(dataset) != len(arrays[0] if arrays else dataset):
                raise ValueError(
                    f"{path}: expected datasets of as many rows as {names[0]}, {len(arrays[0])}; "
                    f"{name} has {len(dataset)}"
                )
            if not memory_limit.fits(4 * dataset.size):
                raise ValueError(f"{path}: dataset {name} of shape {dataset.shape} takes more memory than there is")
            try:
                arrays.append(np.asarray(dataset, np.float32))
            except OSError as error:
                raise ValueError(f"Failed to read float dataset {name} of {path}: {error}") from None
    if not len(arrays[0]):
        raise ValueError(f"{path}: expected at least one row in {names[0]}, found none")
    return arrays


@register("HDF5Data")
class HDF5Data(SourceLayer):
    """The rows of HDF5 files, a batch a forward, over and over.

    `source` lists the files, their names separated by white space. Each top is the dataset of the top's name, its first
    axis being the rows: (batch_size, ...). A file is read whole. `shuffle` draws the files' order anew in each round
    and the rows' order each time a file is read.
    """

    top_count = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(not self.layer_param.HasField("transform_param"), f"{self.type} does not transform data.")
        param = self.layer_param.hdf5_data_param
        self.check(param.batch_size > 0, f"batch_size must be positive; found {param.batch_size}")
        alone = self.phase == caffe_pb2.TEST
        self.stride, self.first = (1, 0) if alone else (parallel.solver_count(), parallel.solver_rank())
        self.check(
            self.first < self.stride, f"expected a solver_rank below solver_count {self.stride}, found {self.first}"
        )
        glog.info("hdf5_data_layer.cpp:81", f"Loading list of HDF5 filenames from: {param.source}")
        try:
            listed = Path(byte_strings.path(param.source)).read_text(encoding="utf-8", errors="surrogateescape")
            entries = [(name, line) for line, text in enumerate(listed.split("\n"), 1) for name in text.split()]
        except OSError as error:
            self.check(False, f"Failed to open source file: {param.source}: {_reason(error)}")
        self.files = [name for name, _ in entries]
        self.places = [f"{param.source}:{line}" for _, line in entries]
        glog.info("hdf5_data_layer.cpp:95", f"Number of HDF5 files: {len(self.files)}")
        self.check(len(self.files) > 0, f"Must have at least 1 HDF5 filename listed in {param.source}")
        self.random = np.random.RandomState(device.random_seed())
        self.file = self.row = 0
        self.file_order, self.row_order = np.arange(len(self.files)), np.arange(0)
        self.arrays: list[np.ndarray] = []
        self._shuffle(self.file_order)
        self._load()
        for blob, array in zip(top, self.arrays, strict=True):
            blob.reshape(param.batch_size, *array.shape[1:])

    def _shuffle(self, order: np.ndarray) -> None:
        if self.layer_param.hdf5_data_param.shuffle:
            self.random.shuffle(order)

    def _load(self) -> None:
        """Read the current file, unless it is the only one and read already."""
        if not self.arrays or len(self.files) > 1:
            path = self.files[self.file_order[self.file]]
            before = [array.shape[1:] for array in self.arrays]
            try:
                self.arrays = read_datasets(path, list(self.layer_param.top))
            except ValueError as error:
                self.check(False, f"{self.places[self.file_order[self.file]]}: {error}")
            found = [array.shape[1:] for array in self.arrays]
            self.check(not before or found == before, f"{path}: expected rows of the shapes {before}, as in the files "
                                                      f"before, found {found}")  # fmt: skip
        self.stream = device.stream_state(self.random)
        self.row, self.row_order = 0, np.arange(len(self.arrays[0]))
        self._shuffle(self.row_order)

    def _pass(self, count: int) -> None:
        """Go on by `count` rows, at the end of a file to the next file."""
        for _ in range(count):
            self.row += 1
            if self.row == len(self.row_order):
                self.file += 1
                if self.file == len(self.files):
                    self.file = 0
                    self._shuffle(self.file_order)
                self._load()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        count = self.layer_param.hdf5_data_param.batch_size
        batch = [upload.empty((count, *array.shape[1:])) for array in self.arrays]
        rows = [values.numpy() for values in batch]
        for item in range(count):
            self._pass(self.first)
            for values, array in zip(rows, self.arrays, strict=True):
                values[item] = array[self.row_order[self.row]]
            self._pass(self.stride - self.first)
        for blob, tensor in zip(top, upload.send(batch).take(), strict=True):
            blob.reshape(*tensor.shape)
            blob.set_data(tensor)

    def snapshot_state(self) -> bytes:
        return caffe_pb2.SourceState(
            file_order=self.file_order, file=self.file, at=self.row, count=len(self.row_order), order_stream=self.stream
        ).SerializeToString()

    def restore_state(self, state: bytes) -> None:
        resumed, source = caffe_pb2.SourceState.FromString(state), self.layer_param.hdf5_data_param.source
        if len(resumed.file_order) != len(self.files):
            raise ValueError(f"expected {len(resumed.file_order)} files, found {len(self.files)} in {source}")
        self.random = device.restored_stream(self.random, resumed.order_stream)
        self.file_order, self.file = np.array(resumed.file_order), resumed.file
        self._load()
        if len(self.row_order) != resumed.count:
            path = self.files[self.file_order[self.file]]
            raise ValueError(f"expected {resumed.count} rows in {path}, found {len(self.row_order)}")
        self.row = resumed.at


@register("HDF5Output")
class HDF5Output(Layer):
    """Writes its bottoms to the HDF5 file `file_name` as `data` and `label`, 4-D: (N, C, H, W).

    The file is there, empty, from set-up on. As in BVLC a second forward cannot add to it and raises; the batch to
    write must hold all rows. The file is written whole or not at all.
    """

    bottom_count = (2, 2)
    top_count = (0, 0)
    DATASETS = ("data", "label")

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.path = byte_strings.path(self.layer_param.hdf5_output_param.file_name)
        self.written = False
        self._write(lambda file: None)

    def _write(self, fill: Callable[[h5py.File], None]) -> None:
        try:
            write_atomic_hdf5(self.path, fill)
        except OSError as error:
            self.check(False, f"Failed to open HDF5 file {self.path!r} for writing: {_reason(error)}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """There is no top."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.check(
            bottom[0].num == bottom[1].num,
            "data blob and label blob must have the same batch size; "
            f"found {bottom[0].shape_string()} and {bottom[1].shape_string()}",
        )
        glog.info("hdf5_output_layer.cpp:33", f"Saving HDF5 file {self.path}")
        self.check(
            not self.written,
            f"Failed to make float dataset data: {self.path} holds the batch of the forward before; the layer writes "
            "one batch a net: use a batch of all rows, or a file a net",
        )

        def fill(file: h5py.File) -> None:
            for name, blob in zip(self.DATASETS, bottom, strict=True):
                file[name] = blob.data.reshape(blob.num, blob.channels, blob.height, blob.width)

        self._write(fill)
        self.written = True
        glog.info("hdf5_output_layer.cpp:38", f"Successfully saved {bottom[0].num} rows")

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """No gradient comes from a file."""
