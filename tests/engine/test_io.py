"""caffe.io where no number needs BVLC: messages, refusals; the numbers are in test_recorded_data.py."""

import caffe
import numpy as np
import pytest
from caffe.proto import caffe_pb2

io = caffe.io


def test_blobproto():
    values = np.arange(24.0).reshape(2, 3, 4)
    blob = io.array_to_blobproto(values, diff=values * 2)
    assert list(blob.shape.dim) == [2, 3, 4]
    assert (io.blobproto_to_array(blob) == values).all()
    assert (io.blobproto_to_array(blob, return_diff=True) == values * 2).all()
    assert io.blobproto_to_array(blob).dtype == float
    legacy = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert io.blobproto_to_array(legacy).tolist() == [[[[0, 1, 2]], [[3, 4, 5]]]]
    assert io.blobproto_to_array(io.array_to_blobproto(np.float32(3))).shape == ()


def test_blobprotovector():
    arrays = [np.ones((2, 3)), np.arange(4.0)]
    back = io.blobprotovector_str_to_arraylist(io.arraylist_to_blobprotovector_str(arrays))
    assert [each.tolist() for each in back] == [each.tolist() for each in arrays]


def test_datum():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    datum = io.array_to_datum(pixels, 7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (2, 3, 4, 7)
    assert datum.data == pixels.tobytes()
    back = io.datum_to_array(datum)
    assert back.dtype == np.uint8 and back.flags.writeable and (back == pixels).all()
    floats = io.array_to_datum(pixels / 2)
    assert not floats.HasField("label") and not floats.data
    assert (io.datum_to_array(floats) == pixels / 2).all()
    with pytest.raises(ValueError, match="Incorrect array shape"):
        io.array_to_datum(pixels[0])
    with pytest.raises(ValueError, match=r"encoded: .* cv2.imdecode"):
        io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"x"))


def test_transformer_refuses():
    transformer = io.Transformer({"data": (1, 3, 6, 5)})
    for call in (transformer.preprocess, transformer.deprocess, transformer.set_mean, transformer.set_raw_scale,
                 transformer.set_input_scale, transformer.set_transpose, transformer.set_channel_swap):  # fmt: skip
        with pytest.raises(Exception, match="label is not one of the net inputs"):
            call("label", np.zeros(3))
    with pytest.raises(ValueError, match="Transpose order needs to have the same number of dimensions as the input"):
        transformer.set_transpose("data", (1, 0))
    with pytest.raises(ValueError, match="Channel swap needs to have the same number of dimensions as the input chan"):
        transformer.set_channel_swap("data", (1, 0))
    with pytest.raises(ValueError, match="Mean channels incompatible with input"):
        transformer.set_mean("data", np.zeros(4))
    with pytest.raises(ValueError, match="Mean shape invalid"):
        transformer.set_mean("data", np.zeros((1, 3, 6, 5)))


def test_transformer_means():
    transformer = io.Transformer({"data": (1, 3, 6, 5)})
    transformer.set_mean("data", np.arange(30.0).reshape(6, 5))
    assert transformer.mean["data"].shape == (1, 6, 5)
    transformer.set_mean("data", np.full((3, 2, 2), 7.0))
    assert (transformer.mean["data"] == np.full((3, 6, 5), 7)).all()


def test_preprocess_leaves_the_image_alone():
    transformer = io.Transformer({"data": [1, 3, 2, 2]})
    transformer.set_raw_scale("data", 255)
    image = np.ones((2, 2, 3), np.float32)
    assert (transformer.preprocess("data", image) == 255).all()
    assert (image == 1).all()


def test_load_image_refuses(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "none.png"):
        with pytest.raises(OSError, match=f"Cannot load .*{name}: expected an image file"):
            io.load_image(tmp_path / name)


def test_resize_refuses():
    with pytest.raises(ValueError, match="expected interp_order 0 or 1 for 3 channels, found 3"):
        io.resize_image(np.random.rand(4, 4, 3), (2, 2), 3)
    with pytest.raises(ValueError, match="crops of 5 x 2 do not fit"):
        io.oversample([np.zeros((4, 4, 3))], (5, 2))
