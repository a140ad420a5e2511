"""Layers fed from memory: DummyData, Input, MemoryData."""

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("param", "tops", "message"),
    [
        ("type: 'DummyData' dummy_data_param { shape { dim: 1 } shape { dim: 1 } }", 3,
         r"Must specify 'shape' once, or once per top blob \(3\); specified 2."),
        ("type: 'DummyData' dummy_data_param { num: 1 channels: 1 height: 1 }", 1,
         r"Must specify 'width' once, or once per top blob \(1\); specified 0."),
        ("type: 'DummyData' dummy_data_param { num: 1 shape { dim: 1 } }", 1,
         "Both shape and legacy fields were specified"),
        ("type: 'DummyData' dummy_data_param { shape { dim: 1 } data_filler {} data_filler {} }", 3,
         "Number of data fillers must be 0, 1 or equal to the number of tops: 3; you specified 2 data fillers."),
        ("type: 'Input' input_param { shape { dim: 1 } shape { dim: 1 } }", 3,
         "Must specify 'shape' once, once per top blob, or not at all: 3 tops, 2 shapes."),
        ("type: 'MemoryData' memory_data_param { batch_size: 1 channels: 1 height: 1 }", 2,
         "batch_size, channels, height, and width must be specified and positive in memory_data_param"),
        ("type: 'MemoryData'", 1, "MemoryData Layer produces 2 top blob"),
    ],
)  # fmt: skip
def test_refusals(one, param, tops, message):
    with pytest.raises(ValueError, match=message):
        one(param, tops=tops)


def test_dummy_data_fills_constants_once_and_others_each_time(one):
    it = one(
        "type: 'DummyData' dummy_data_param { shape { dim: 50 } data_filler { value: 3 } "
        "data_filler { type: 'uniform' min: 1 max: 2 } }",
        tops=2,
    )
    constant, uniform = it.top
    assert (constant.data == 3).all()
    assert (uniform.data == 0).all()
    constant.data[0] = 5
    it.layer.forward([], it.top)
    first = uniform.data.copy()
    it.layer.forward([], it.top)
    assert list(constant.data) == [5] + [3] * 49
    assert (first != uniform.data).all() and first.min() >= 1 and uniform.data.max() <= 2


def test_input_keeps_what_the_user_wrote(one):
    it = one("type: 'Input' input_param { shape { dim: 2 } shape { dim: 1 dim: 3 } }", tops=2)
    assert [blob.shape for blob in it.top] == [(2,), (1, 3)]
    it.top[0].data[:] = 4
    it.layer.forward([], it.top)
    assert list(it.top[0].data) == [4, 4]


@pytest.fixture
def memory(one):
    """(layer, tops) of a MemoryData layer."""
    it = one("type: 'MemoryData' memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }", tops=2)
    return it.layer, it.top


def test_memory_data_reads_the_arrays_themselves(memory):
    made, top = memory
    with pytest.raises(ValueError, match="needs to be initialized by calling Reset"):
        made.forward([], top)
    values = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    made.reset(values)
    made.forward([], top)
    assert not top[1].data.any()
    values[3] = 9
    made.reset(values, np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1))
    made.forward([], top)
    made.forward([], top)
    assert top[0].data.ravel().tolist() == [6, 7, 8, 9, 9, 9]
    assert top[1].data.ravel().tolist() == [2, 3]
    top[0].data[:] = -1
    assert (values >= 0).all()


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (np.zeros((4, 1, 1, 3)), None, "data array must be float32, found float64"),
        (np.zeros((4, 1, 1, 6), np.float32)[..., ::2], None, "data array must be C contiguous"),
        (np.zeros((4, 3), np.float32), None, "data array must be 4-d"),
        (np.zeros((4, 2, 1, 3), np.float32), None, "wrong number of channels: expected 1, found 2"),
        (np.zeros((4, 1, 1, 2), np.float32), None, "wrong width: expected 3, found 2"),
        (np.zeros((3, 1, 1, 3), np.float32), None, "multiple of batch size; found 3 for batch_size 2"),
        (np.zeros((4, 1, 1, 3), np.float32), np.zeros(2, np.float32), "must have the same first dimension"),
        (np.zeros((4, 1, 1, 3), np.float32), np.zeros((4, 2), np.float32), "one label an item"),
    ],
)
def test_memory_data_refuses(memory, values, labels, message):
    with pytest.raises(ValueError, match=message):
        memory[0].reset(values, labels)
