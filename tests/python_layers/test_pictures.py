"""The decoder of the Python layers and the tools: each kind of picture as the same pixels, broken ones by name."""

import cv2
import numpy as np
import picture_kinds as table
import pictures
import pytest
from caffe.data import decoding
from pictures import PictureError

PICTURES, BROKEN = table.pictures(), table.broken()


@pytest.mark.parametrize("name", PICTURES)
def test_each_kind_of_picture(name):
    data, expected, tolerance = PICTURES[name]
    stored = pictures.decode(data, None, name)
    assert stored.dtype == np.uint8 and stored.shape == expected.shape and stored.flags.c_contiguous
    assert np.abs(stored.astype(int) - expected).max() <= tolerance
    color = pictures.decode(data, False, name)
    np.testing.assert_array_equal(color, np.broadcast_to(stored, (*stored.shape[:2], 3)))
    gray = pictures.decode(data, True, name)
    assert gray.shape == (*stored.shape[:2], 1)
    converted = cv2.cvtColor(color, cv2.COLOR_BGR2GRAY)[:, :, None]
    assert np.abs(gray.astype(int) - converted).max() <= 3  # a JPEG has its own luminance


@pytest.mark.parametrize("name", PICTURES)
def test_the_engines_decoder_sees_the_same_pictures(name):
    for gray, flags in ((True, cv2.IMREAD_GRAYSCALE), (False, cv2.IMREAD_COLOR), (None, cv2.IMREAD_ANYCOLOR)):
        image = decoding.decode(PICTURES[name][0], flags)
        expected = pictures.decode(PICTURES[name][0], gray, name)
        np.testing.assert_array_equal(image.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", BROKEN)
def test_the_engines_decoder_refuses_the_same_pictures(name):
    for flags in (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_COLOR):
        with pytest.raises(ValueError, match="expected an image"):
            decoding.decode(BROKEN[name], flags)


def test_no_room_is_made_for_what_a_picture_cannot_hold():
    for name, message in (
        ("long chunk.png", "found a PNG cut short or damaged .*, a chunk of 4,294,967,040 from byte 41 on"),
        ("large screen.gif", "found a damaged GIF .110 bytes for 16383 x 65535 pixels"),
    ):
        with pytest.raises(ValueError, match=message):
            decoding.decode(BROKEN[name], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("gray", [True, False, None])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures_are_refused_by_name(name, gray):
    with pytest.raises(PictureError, match=f"^list.txt:3: {name}: expected .*found "):
        pictures.decode(BROKEN[name], gray, f"list.txt:3: {name}")


def test_what_is_said_of_a_broken_picture():
    for name, message in (
        ("empty.jpg", "found 0 bytes"),
        ("page.jpg", "37 bytes that begin with b'<!DOCTYP'"),
        ("cut jpeg 4", "a JPEG that is cut short"),
        ("long chunk.png", "a PNG that is cut short or damaged"),
        ("large screen.gif", "a damaged GIF .110 bytes for 16383 x 65535 pixels"),
        ("float.pfm", "floating-point pixels"),
    ):
        with pytest.raises(PictureError, match=message):
            pictures.decode(BROKEN[name], False, name)


def test_a_picture_of_too_many_pixels_is_refused():
    bomb = bytearray(table.encode(".bmp", table.COLOR))
    bomb[18:26] = (1 << 20).to_bytes(4, "little") * 2
    with pytest.raises(PictureError, match=r"^bomb: expected a picture"):
        pictures.decode(bytes(bomb), None, "bomb")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    for suffix in (" <.jpg", " >.jpg", ".png", ".webp"):
        name = f"orientation {orientation}{suffix}"
        assert pictures.orientation(PICTURES[name][0]) == orientation
    assert {pictures.orientation(data) for name, (data, *_) in PICTURES.items() if "orientation" not in name} == {1}
    assert pictures.orientation(PICTURES["orientation 9.jpg"][0]) == 1


def test_any_cut_of_a_turned_picture_is_upright_or_refused():
    for name in ("orientation 6 <.jpg", "orientation 6.png", "orientation 6.webp"):
        data = PICTURES[name][0]
        assert {pictures.orientation(data[:length]) for length in range(len(data))} <= {1, 6}
