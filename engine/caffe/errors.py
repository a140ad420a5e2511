"""Errors as sentences for the reader: of the libraries beneath the engine, of the system, of users' own layers.

A traceback means a mistake of the engine's, or stands before the sentence that says which layer of the user's it is of.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import atomic_writes

if TYPE_CHECKING:
    from caffe.layer import Layer

# packages whose own exceptions speak of what they were given to read or to compute: what a sentence calls them
_LIBRARIES = {
    "lmdb": "LMDB",
    "cv2": "OpenCV",
    "h5py": "HDF5",
    "google": "protobuf",
    "zipfile": "zip",
    "zlib": "zlib",
    "json": "JSON",
}
_PACKAGES = [Path(__file__).parent, Path(atomic_writes.__file__).parent]
_ALLOCATION = (
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "multiplication overflow",
    "could not create a primitive",  # oneDNN's, as the next
    "could not execute a primitive",
)


class SizeError(ValueError):
    """A shape that no blob can have."""


def is_memory_error(error: BaseException) -> bool:
    """Whether Python, numpy, torch, LMDB or protobuf got no memory, or a library that was to be loaded none."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(words in text for words in _ALLOCATION))
        or (isinstance(error, ImportError) and "failed to map segment" in text)
        or "Arena alloc failed" in text  # protobuf's
        or (type(error).__name__ == "MemoryError" and _library(error) == "LMDB")
    )


def name_layer(error: Exception, layer: Layer) -> None:
    """Raise `error` of a layer's work as a sentence that names the layer, where it is a library's or ours.

    An error of a user's own layer is not changed, but `sentence` knows of which layer it is.
    """
    if hasattr(error, "caffe_layer"):
        return  # of a layer within this one
    name = f"layer {layer.layer_param.name!r} ({layer.type})"
    if layer.public is not layer:
        error.caffe_layer = _user_layer(error, layer)  # type: ignore[attr-defined]
    elif isinstance(error, OSError) and "layer " not in str(error):  # a file that its parameters name
        named = type(error)(f"{name}: {error}")
        named.errno = error.errno
        raise named from error
    elif is_memory_error(error):
        raise MemoryError(
            f"{name}: not enough memory: {_first_line(error)}; make batch_size, the images or num_output smaller"
        ) from error
    elif isinstance(error, SizeError):
        layer.check(False, str(error))
    elif library := _library(error):
        layer.check(False, f"{library}: {_first_line(error)}")
    elif isinstance(error, ValueError) and ours(error) and "layer " not in str(error):  # a filler's, say
        layer.check(False, str(error))


def _user_layer(error: Exception, layer: Layer) -> str:
    """The sentence on an error of a user's own layer: the layer, its class, file and line."""
    cls = type(layer.public)
    name = f"layer {layer.layer_param.name!r} (Python, {cls.__module__}.{cls.__qualname__}"
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:  # a class that was typed in
        file = None
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f", {file}{f':{lines[-1]}' if lines else ''}" if file else ""
    return f"{name}{place}): {type(error).__name__}: {_first_line(error)}"


def sentence(error: Exception) -> str | None:
    """What to tell the reader of an error that ends a command; None for a mistake of the engine's."""
    if hasattr(error, "caffe_layer"):
        return error.caffe_layer
    if is_memory_error(error):
        return str(error) if "not enough memory" in str(error) else f"not enough memory: {_first_line(error)}"
    if isinstance(error, OSError):
        return str(error)
    if isinstance(error, ValueError | ImportError | NotImplementedError) and ours(error):
        return str(error)
    library = _library(error)
    return f"{library}: {_first_line(error)}" if library else None


def of_command(error: Exception, words: Sequence[str]) -> str | None:
    """`sentence`, and the words of the command where memory was short for something that no layer is named for."""
    message = sentence(error)
    if message is None or not is_memory_error(error) or message.startswith("layer "):
        return message
    return f"{message} ({' '.join(words)})"


def ours(error: BaseException) -> bool:
    """Whether the engine raised it, with a sentence made for the reader."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and any(Path(frames[-1].filename).is_relative_to(package) for package in _PACKAGES)


def _library(error: BaseException) -> str | None:
    return _LIBRARIES.get(type(error).__module__.partition(".")[0])


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
