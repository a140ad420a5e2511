"""caffe.io where no number needs BVLC: messages, refusals; the numbers are in test_recorded_data.py."""

import http.server
import os
import threading
import types
from io import BytesIO

import caffe
import cv2
import numpy as np
import pytest
from caffe import scikit_image
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
    with pytest.raises(ValueError, match=r"Channel swap: expected channels below 3, found \(2, 3, 0\)"):
        transformer.set_channel_swap("data", (2, 3, 0))
    with pytest.raises(ValueError, match="Mean channels incompatible with input"):
        transformer.set_mean("data", np.zeros(4))
    with pytest.raises(
        ValueError, match=r"Mean channels incompatible with input. Expected \(3, 6, 5\), found \(5, 2, 2\)"
    ):
        transformer.set_mean("data", np.zeros((5, 2, 2)))
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


PIXELS = np.array([[[255, 0, 51], [0, 102, 255], [204, 153, 0]]], np.uint8)  # (1, 3, 3) RGB
PNG = cv2.imencode(".png", PIXELS[:, :, ::-1])[1].tobytes()


class Answers(http.server.BaseHTTPRequestHandler):
    """A web server that has /image.png, /text.png and /cut.png, which ends early."""

    def do_GET(self):
        pages = {"/image.png": PNG, "/text.png": b"no image", "/cut.png": PNG}
        if self.path not in pages:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(pages[self.path])))
        self.end_headers()
        self.wfile.write(pages[self.path][: 20 if self.path == "/cut.png" else None])

    def log_message(self, *words):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_load_image_takes_what_bvlcs_takes(tmp_path, monkeypatch, address):
    path = tmp_path / "an image.png"
    path.write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    behind = BytesIO(b"12345" + PNG)
    behind.seek(5)
    sources = [str(path), path, "an image.png", "~/an image.png", path.as_uri(), f"file://{path}", BytesIO(PNG), behind]
    with path.open("rb") as file:
        for source in (*sources, file, f"{address}/image.png"):
            image = io.load_image(source)
            assert image.dtype == np.float32 and (image == np.float32(PIXELS / 255)).all()
    assert io.load_image(BytesIO(PNG), color=False).shape == (1, 3, 1)


def test_load_image_refuses(tmp_path, address):
    (tmp_path / "text.png").write_text("no image")
    for source in (tmp_path / "text.png", f"{address}/text.png", f"file://{tmp_path}/text.png"):
        with pytest.raises(OSError, match=r"Cannot load .*text.png: expected an image, found 8 bytes that OpenCV"):
            io.load_image(source)
    for source in (tmp_path / "none.png", str(tmp_path / "none.png")):
        with pytest.raises(FileNotFoundError, match=r"none.png: expected an image file: No such file .* \(seen from"):
            io.load_image(source)
    for source, reason in (
        (f"{address}/none.png", "404: Not Found"),
        (f"{address}/cut.png", "IncompleteRead"),
        (f"file://{tmp_path}/none.png", "No such file"),
        ("http://127.0.0.1:1/x.png", "Connection refused"),
        ("a\0b.png", "null byte"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(OSError, match=f"Cannot load .*: expected an image file: .*{reason}"):
            io.load_image(source)
    with pytest.raises(OSError, match="Cannot load the file object: expected an image, found 0 bytes"):
        io.load_image(BytesIO())
    with (tmp_path / "text.png").open() as text, pytest.raises(OSError, match="expected a file opened as bytes, found"):
        io.load_image(text)
    for source in (PNG, np.zeros((3, 3, 3)), None):
        with pytest.raises(TypeError, match=r"expected a path, an address or a file object, found .*io.BytesIO"):
            io.load_image(source)


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("kind, like", [(np.float16, np.float32), (np.longdouble, np.float64)])
def test_resize_of_floats_that_scipy_does_not_have(kind, like, channels):
    image = np.random.RandomState(0).rand(8, 6, channels).astype(kind)
    np.testing.assert_array_equal(io.resize_image(image, (3, 4)), io.resize_image(image.astype(like), (3, 4)))


def test_resize_refuses():
    with pytest.raises(ValueError, match="expected an order from 0 to 5, found 6"):
        io.resize_image(np.random.rand(4, 4, 3), (2, 2), 6)
    with pytest.raises(ValueError, match=r"expected an output_shape of 3 or 2 axes, found \(2,\)"):
        io.resize(np.random.rand(4, 4, 3), (2,))
    with pytest.raises(ValueError, match=r"expected a mode of constant, edge, .* found 'nearest'"):
        io.resize(np.random.rand(4, 4, 3), (2, 2), mode="nearest")
    with pytest.raises(ValueError, match="crops of 5 x 2 do not fit"):
        io.oversample([np.zeros((4, 4, 3))], (5, 2))


def test_what_scripts_find_in_the_module(tmp_path, monkeypatch):
    """The names of pycaffe's module, skimage's parts also where scikit-image is not installed."""
    names = "np caffe_pb2 resize zoom skimage Transformer load_image resize_image oversample datum_to_array"
    assert all(hasattr(io, name) for name in names.split()) and set(names.split()) <= set(dir(io))
    assert io.zoom(np.eye(2), 2, order=0).shape == (4, 4)
    with pytest.raises(AttributeError, match=r"module 'caffe.io' has no attribute 'nonsense'"):
        _ = io.nonsense
    monkeypatch.setattr(scikit_image.importlib, "import_module", missing)
    skimage = io.skimage
    values = skimage.img_as_float(np.array([0, 51, 255], np.uint8))
    assert values.dtype == float and values.tolist() == [0, 0.2, 1]
    path = str(tmp_path / os.fsdecode(b"caf\xe9.png"))
    for image in (PIXELS, PIXELS / 255, PIXELS[:, :, 0]):
        skimage.io.imsave(path, image)
        assert (skimage.io.imread(path) == (PIXELS if image.ndim == 3 else image)).all()
    assert skimage.color.gray2rgb(skimage.color.rgb2gray(PIXELS)).shape == (1, 3, 3)
    assert skimage.transform.resize is io.resize
    with pytest.raises(OSError, match="expected a name that ends in a type of image"):
        skimage.io.imsave(str(tmp_path / "saved"), PIXELS)
    with pytest.raises(OSError, match="expected a name that ends in a type of image"):
        skimage.io.imsave(str(tmp_path / "saved.\udc80"), PIXELS)
    with pytest.raises(OSError, match=r"No such file or directory: .*saved.png"):
        skimage.io.imsave(str(tmp_path / "no" / "saved.png"), PIXELS)
    with pytest.raises(AttributeError, match=r"caffe.io.skimage.transform has no 'hough' .*pip install scikit-image"):
        _ = skimage.transform.hough


def missing(name):
    raise ModuleNotFoundError(name)


def test_scikit_image_itself_where_it_is_installed(monkeypatch):
    installed = types.ModuleType("skimage")
    monkeypatch.setattr(scikit_image.importlib, "import_module", lambda name: installed)
    assert io.skimage is installed
