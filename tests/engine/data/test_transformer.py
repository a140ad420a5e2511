"""DataTransformer beyond what the data layers' tests reach."""

import caffe
import cv2
import numpy as np
import pytest
from caffe.data.decoding import datum_image, decode
from caffe.data.transformer import DataTransformer
from caffe.proto import caffe_pb2, text


def transformer(prototxt, phase=caffe.TRAIN):
    caffe.set_random_seed(3)
    return DataTransformer(text.parse(prototxt, caffe_pb2.TransformationParameter()), phase)


def test_value_is_pixel_minus_mean_times_scale_in_float32():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    [[value]] = transformer("mean_value: [0.1, 0.2, 0.3] scale: 0.3").batch([("x", lambda: pixels)], threads=False)
    mean = np.array([0.1, 0.2, 0.3], np.float32)[:, None, None]
    assert (value.numpy() == (pixels.astype(np.float32) - mean) * np.float32(0.3)).all()


def test_threads_change_nothing():
    images = [np.random.RandomState(i).randint(0, 256, (3, 20, 21)).astype(np.uint8) for i in range(50)]
    sources = [(str(index), lambda image=image: image) for index, image in enumerate(images)]
    [one], [two] = (
        transformer("crop_size: 9 mirror: true mean_value: 7").batch(sources, threads) for threads in (True, False)
    )
    assert one.shape == (50, 3, 9, 9)
    assert (one == two).all()


def test_shape():
    assert transformer("").shape((3, 4, 5)) == (3, 4, 5)
    assert transformer("crop_size: 4").shape((3, 4, 5)) == (3, 4, 4)


def test_the_first_of_several_bad_images_is_named():
    def bad():
        raise ValueError("bad")

    good = ("good", lambda: np.zeros((1, 2, 2), np.uint8))
    sources = [good] * 9 + [("ninth", bad)] + [good] * 20 + [("thirtieth", bad)]
    for threads in (True, False):
        with pytest.raises(ValueError, match=r"^ninth: bad$"):
            transformer("").batch(sources, threads)


def test_decode():
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    for flags, shape in ((cv2.IMREAD_COLOR, (4, 5, 3)), (cv2.IMREAD_GRAYSCALE, (4, 5)), (cv2.IMREAD_UNCHANGED, (4, 5))):
        image = decode(cv2.imencode(".png", grey)[1].tobytes(), flags)
        assert image.shape == shape and image.flags.c_contiguous
        assert (image.reshape(4, 5, -1) == grey[:, :, None]).all()
        for data in (b"", b"no image"):
            with pytest.raises(ValueError, match=rf"expected an image, found {len(data)} bytes that OpenCV"):
                decode(data, flags)
    for begin in (b"PF\n1 1\n-1.0\n" + bytes(12), b"v/1\x01"):
        with pytest.raises(ValueError, match="expected an image of 8 or 16 bits a channel, found floating"):
            decode(begin, cv2.IMREAD_COLOR)


def test_datum_image_prefers_data_to_float_data():
    datum = caffe_pb2.Datum(channels=1, height=1, width=2, data=b"\x03\x04", float_data=[0.5, 1.5])
    assert datum_image(datum).tolist() == [[[3, 4]]]
    datum.ClearField("data")
    assert datum_image(datum).tolist() == [[[0.5, 1.5]]]
    datum.width = 3
    with pytest.raises(ValueError, match=r"the Datum says 1x1x3 .*, its float_data holds 2 values$"):
        datum_image(datum)
