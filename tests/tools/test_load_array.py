"""Arrays in files that are damaged: named, whatever numpy raises."""

from __future__ import annotations

import numpy as np
import pytest
from dhn.codes.sources import read_mean
from dhn.files import load_array


def test_a_damaged_header(tmp_path):
    path = tmp_path / "mean.npy"
    np.save(path, np.ones((3, 6, 6), np.float32))
    content = path.read_bytes()
    for place, value in ((10, b"("), (10, b"\xff"), (12, b"'"), (0, b"x"), (8, b"\xff\xff")):  # TokenError, and others
        path.write_bytes(content[:place] + value + content[place + len(value) :])
        with pytest.raises(ValueError, match=r"mean\.npy: expected arrays of numbers as numpy saves them"):
            load_array(path)
        with pytest.raises(ValueError, match=r"mean\.npy: expected a mean image"):
            read_mean(str(path))
    path.write_bytes(content)
    assert load_array(path).shape == (3, 6, 6)
    with pytest.raises(FileNotFoundError):
        load_array(tmp_path / "none.npy")
