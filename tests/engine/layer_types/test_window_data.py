"""WindowData: what windows become, which are drawn, what is refused."""

import caffe
import cv2
import numpy as np
import pytest

# one picture of 12x10 (width x height), one of 9x9
WINDOWS = """# 0
a.png
3 10 12
4
3 0.9 1 2 8 6
7 0.5 0 0 3 3
9 0.4 2 2 5 5
2 0.1 4 5 11 9
# 1
b.png 3 9 9 1
 5 0.0 0 0 8 8
"""


@pytest.fixture
def pictures(tmp_path):
    """The pictures, (H, W, 3) in BGR order, written beside their window file."""
    random = np.random.RandomState(2)
    made = {"a.png": random.randint(0, 256, (10, 12, 3)), "b.png": random.randint(0, 256, (9, 9, 3))}
    for name, pixels in made.items():
        cv2.imwrite(str(tmp_path / name), pixels)
    (tmp_path / "windows.txt").write_text(WINDOWS)
    return made


@pytest.fixture
def net(tmp_path, pictures):
    def make(fields="", transform="crop_size: 4", windows=None):
        if windows is not None:
            (tmp_path / "windows.txt").write_text(windows)
        (tmp_path / "net.prototxt").write_text(
            'layer { name: "it" type: "WindowData" top: "data" top: "label" window_data_param { '
            f'source: "{tmp_path}/windows.txt" root_folder: "{tmp_path}/" batch_size: 8 fg_threshold: 0.5 '
            f"bg_threshold: 0.2 {fields} }} transform_param {{ {transform} }} }}"
        )
        caffe.set_random_seed(1)
        return caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)

    return make


def warped(pixels, x1, y1, x2, y2, size):
    part = pixels[y1 : y2 + 1, x1 : x2 + 1].astype(np.uint8)
    return cv2.resize(part, size, interpolation=cv2.INTER_LINEAR).transpose(2, 0, 1).astype(np.float32)


def test_background_first_then_foreground(net, pictures):
    it = net("fg_fraction: 0.3")
    assert it.blobs["data"].shape == (8, 3, 4, 4) and it.blobs["label"].shape == (8,)
    foreground = {
        3: warped(pictures["a.png"], 1, 2, 8, 6, (4, 4)),
        7: warped(pictures["a.png"], 0, 0, 3, 3, (4, 4)),
    }
    background = [
        warped(pictures["a.png"], 4, 5, 11, 9, (4, 4)),
        warped(pictures["b.png"], 0, 0, 8, 8, (4, 4)),
    ]
    drawn = []
    for _ in range(6):
        it.forward()
        labels = it.blobs["label"].data.tolist()
        assert labels[:6] == [0] * 6 and set(labels[6:]) <= {3, 7}  # 8 * 0.3 rounds down to 2
        for label, image in zip(labels, it.blobs["data"].data, strict=True):
            if label:
                np.testing.assert_array_equal(image, foreground[label])
                drawn.append(label)
            else:
                same = [np.array_equal(image, each) for each in background]
                assert any(same)
                drawn.append(-1 - same.index(True))
    assert set(drawn) == {3, 7, -1, -2}


def test_mirror_mean_and_scale(net, pictures):
    one = WINDOWS.replace("7 0.5", "7 0.4").replace("5 0.0", "5 0.3")  # one window of each kind is left
    it = net("scale: 0.5 fg_fraction: 1", "crop_size: 4 mirror: true mean_value: 10 mean_value: 20 mean_value: 30", one)
    expected = warped(pictures["a.png"], 1, 2, 8, 6, (4, 4)) - np.reshape([10, 20, 30], (3, 1, 1))
    expected = expected / 2
    it.forward()
    mirrored = []
    for image in it.blobs["data"].data:
        mirrored.append(np.array_equal(image, expected[:, :, ::-1]))
        assert mirrored[-1] or np.array_equal(image, expected)
    assert len(set(mirrored)) == 2


@pytest.mark.parametrize("cache", ["false", "true"])
def test_context_beyond_the_image_is_zero(net, pictures, cache):
    """A window of 4x4 at the corner, with 2 pixels of context in a crop of 8: twice the window."""
    text = "# 0\na.png 3 10 12 2\n7 1 0 0 3 3\n0 0 0 0 3 3\n"
    it = net(f"context_pad: 2 fg_fraction: 1 cache_images: {cache}", "crop_size: 8 mean_value: 5", text)
    it.forward()
    image = it.blobs["data"].data[0]
    assert not image[:, :2].any() and not image[:, :, :2].any()
    # rounding makes the expanded window 9 pixels wide, from -2 to 6; 7 of them are in the image
    np.testing.assert_array_equal(image[:, 2:, 2:], warped(pictures["a.png"], 0, 0, 6, 6, (6, 6)) - 5)


def test_square(net, pictures):
    """A window of 4x2 becomes a square around its centre: rows 1 to 5."""
    text = "# 0\na.png 3 10 12 2\n7 1 4 2 7 3\n0 0 4 2 7 3\n"
    it = net('crop_mode: "square" fg_fraction: 1', "crop_size: 5", text)
    it.forward()
    np.testing.assert_array_equal(it.blobs["data"].data[0], warped(pictures["a.png"], 4, 1, 8, 5, (5, 5)))


@pytest.mark.parametrize(
    "fields, transform, windows, said",
    [
        ("", "", None, "crop_size must be above 0"),
        ("context_pad: 2", "crop_size: 4", None, "context_pad must be below half of crop_size 4; found 2"),
        ('crop_mode: "cut"', "crop_size: 4", None, 'crop_mode must be "warp" or "square"; found "cut"'),
        ("fg_fraction: 1.5", "crop_size: 4", None, "fg_fraction must be from 0 to 1"),
        ("", "crop_size: 4 mean_value: 1 mean_value: 2", None, "Specify either 1 mean_value or as many as channels"),
        ("", "crop_size: 4", "", "Window file is empty"),
        ("", "crop_size: 4", "# 0\na.png\n3 x", "windows.txt:3: expected height, found x"),
        ("", "crop_size: 4", "# 1e999", "windows.txt:1: expected the image's index, found 1e999"),
        ("", "crop_size: 4", "# 0\na.png 3 1 1 1\n1 0.5", "expected x1, found the end of the file"),
        ("", "crop_size: 4", "0 a.png", "windows.txt:1: expected `# index` of an image, found '0'"),
        ("", "crop_size: 4", "# 0\na.png 3 10 12 1\n1 0.9 0 0 3 3", "expected at least one background window"),
        ("", "crop_size: 4", "# 0\na.png 3 10 12 1\n1 0.1 0 0 3 3", "expected at least one foreground window"),
        (
            "",
            "crop_size: 4",
            "# 0\na.png 3 10 12 2\n0 0.9 0 0 3 3\n0 0 0 0 3 3",
            "windows.txt:3: expected classes above 0",
        ),
        (
            "cache_images: true",
            "crop_size: 4",
            "# 0\nno.png 3 1 1 0",
            r"windows.txt:2: Could not open or find file .*no.png",
        ),
        ("", "crop_size: 4", "# 0\na.png\n1 9 9 1\n1 1 0 0 3 3", "windows.txt:3: expected 3 channels, .* found 1"),
        (
            "",
            "crop_size: 4",
            "# 0\na.png\n3 9 9 1\n1 1 0 0 3 2147483648",
            "windows.txt:4: expected y2, found 2147483648",
        ),
    ],
)
def test_refusals(net, fields, transform, windows, said):
    with pytest.raises(ValueError, match=rf"layer 'it' \(WindowData\): .*{said}"):
        net(fields, transform, windows)


@pytest.mark.parametrize(
    "windows, said",
    [
        ("# 0\nno\0.png 3 9 9 2\n1 1 0 0 3 3\n0 0 0 0 3 3", r"windows.txt:2: Could not open or find file .*zero byte"),
        ("# 0\nno.png 3 9 9 2\n1 1 0 0 3 3\n0 0 0 0 3 3", "windows.txt:2: Could not open or find file .*no.png"),
        (
            "# 0\na.png 3 9 9 2\n1 1 0 0 3 10\n0 0 0 0 3 10",
            r"windows.txt:[34]: window \(0, 0, 3, 10\) .* lies outside the image of 12x10",
        ),
    ],
)
def test_refused_when_read(net, windows, said):
    it = net(windows=windows)
    with pytest.raises(ValueError, match=rf"layer 'it' \(WindowData\): .*{said}"):
        it.forward()


def test_a_window_that_its_context_makes_empty_is_refused(net):
    it = net("context_pad: 1", windows="# 0\na.png 3 9 9 2\n1 1 7 0 5 7\n0 0 7 0 5 7")
    with pytest.raises(ValueError, match=r"windows.txt:[34]: window \(7, 0, 5, 7\) .* of \S*a.png is empty"):
        it.forward()


def test_no_window_file(net, tmp_path):
    net()
    text = (tmp_path / "net.prototxt").read_text().replace("windows.txt", "no.txt")
    (tmp_path / "net.prototxt").write_text(text)
    with pytest.raises(FileNotFoundError, match=r"Failed to open window file .*no.txt: No such file"):
        caffe.Net(str(tmp_path / "net.prototxt"), caffe.TRAIN)
