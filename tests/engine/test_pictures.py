"""One table of pictures (bvlc_pictures.py), one rule: what BVLC shows of each, and that every way in shows the same."""

from pathlib import Path

import bvlc_pictures as table
import caffe
import lmdb
import numpy as np
import pictures
import pytest
import storage
from caffe.cli import compute_image_mean, convert_imageset
from caffe.data import exif
from caffe.data.databases import Database
from caffe.proto import caffe_pb2

HERE = Path(__file__).resolve().parent
BVLC = storage.load(HERE / "recorded" / "pictures")
FILES = ("image_data", "image_data_gray", "window_data")
DECODED = (*FILES, "data", "data_color", "data_gray")
LOADED = ("load_image", "load_image_gray")
# Where the engine shows what BVLC, with OpenCV 4.5, scikit-image 0.18 and Pillow 8, does not, and is meant to.
DIFFERENT = {
    # EXIF is applied to every type of file, not to a JPEG alone
    "turned6.png": (*FILES, "data_color", "data_gray", *LOADED),
    "turned8.webp": (*DECODED, *LOADED),
    "rgb.webp": ("data", "data_color", "data_gray", *LOADED),
    # the first frame of a GIF is read
    "two_frames.gif": DECODED,
    # alpha is dropped; scikit-image 0.18 lays the picture on white where it is to be grey, and only then
    "palette_alpha.png": ("load_image_gray",),
    "grey_alpha.png": ("load_image_gray",),
    "rgba.png": ("load_image_gray",),
    # Pillow rounds otherwise
    "cmyk.jpg": LOADED,
}
TURNED = {"turned6.png": 6, "turned8.webp": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures")
    table.write(str(path))
    return str(path)


@pytest.fixture(scope="module")
def seen(folder):
    """What each reader shows of a picture, asked once."""
    answers = {}

    def ask(name, reader):
        if (name, reader) not in answers:
            answers[name, reader] = table.READERS[reader](caffe, folder, name)
        return answers[name, reader]

    return ask


@pytest.mark.parametrize("name", table.PICTURES)
def test_what_bvlc_shows(name, seen):
    for reader in set(table.READERS) - set(DIFFERENT.get(name, ())):
        if reader == "data" and name.endswith("16.png"):
            assert reader not in BVLC[name]
            with pytest.raises(ValueError, match="Image data type must be unsigned byte, found uint16"):
                seen(name, reader)
        else:
            np.testing.assert_allclose(seen(name, reader), BVLC[name][reader], rtol=0, atol=1e-4, err_msg=reader)


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_bvlc_does_not_show(name, seen):
    """These really differ, or BVLC stops; the list above is not to grow stale."""
    for reader in DIFFERENT[name]:
        recorded = BVLC.get(name, {}).get(reader)
        assert recorded is None or recorded.shape != seen(name, reader).shape or (recorded != seen(name, reader)).any()


@pytest.mark.parametrize("name", table.PICTURES)
def test_every_way_in_shows_the_same_picture(name, seen):
    """Training (files, windows, an LMDB that is told to decode), extraction and classification, in colour and grey."""
    content, path = table.PICTURES[name], name
    for gray, suffix in ((False, ""), (True, "_gray")):
        picture = seen(name, "image_data" + suffix)
        assert (seen(name, "data" + (suffix or "_color")) == picture).all()
        assert (pictures.decode(content, gray, path).transpose(2, 0, 1) == picture).all()
    colour = seen(name, "image_data")
    assert (seen(name, "window_data") == colour[:, :4, :4]).all()
    steps = 1 if name == "grey16.png" else 1e-4  # 16 bits of a grey picture are kept
    np.testing.assert_allclose(seen(name, "load_image"), colour, rtol=0, atol=steps)
    luminance = np.tensordot([0.0721, 0.7154, 0.2125], colour, 1)[np.newaxis]
    np.testing.assert_allclose(seen(name, "load_image_gray"), luminance, rtol=0, atol=steps)


@pytest.mark.parametrize("name", table.PICTURES)
def test_convert_imageset_stores_the_same_picture(name, folder, seen):
    for color, reader in ((True, "image_data"), (False, "image_data_gray")):
        datum = convert_imageset.image_datum(f"{folder}/{name}", 0, None, color, "")
        stored = np.frombuffer(datum.data, np.uint8).reshape(datum.channels, datum.height, datum.width)
        assert (stored == seen(name, reader)).all()


def test_a_picture_without_loss_is_the_one_that_was_written(seen):
    colour = table.PIXELS[:, :, ::-1].transpose(2, 0, 1)
    for name in ("rgb.png", "rgba.png", "rgb.bmp", "rgb.tif", "rgb.webp"):
        assert (seen(name, "image_data") == colour).all()
    for name, way in TURNED.items():
        assert (seen(name, "image_data") == table.turned(table.PIXELS[:, :, ::-1], way).transpose(2, 0, 1)).all()
        assert (seen(name, "data") == colour).all()
    for way in range(1, 9):
        upright = table.turned(seen("rgb.jpg", "image_data").transpose(1, 2, 0), way).transpose(2, 0, 1)
        assert (seen(f"turned{way}.jpg", "image_data") == upright).all()


@pytest.mark.parametrize("name", [*table.PICTURES, *table.DAMAGED])
def test_both_decoders_read_the_same_orientation(name):
    content = {**table.PICTURES, **table.DAMAGED}[name]
    assert exif.orientation(content) == pictures.orientation(content)


def test_orientations():
    assert [exif.orientation(table.PICTURES[f"turned{way}.jpg"]) for way in range(1, 9)] == list(range(1, 9))
    named = {"turned_6_big_endian.jpg": 6, "turned_9.jpg": 1, "turned6.png": 6, "turned8.webp": 8, "rgb.jpg": 1}
    assert {name: exif.orientation(table.PICTURES[name]) for name in named} == named
    assert exif.orientation(table.exif_jpeg(6)[:30]) == 1  # the block is cut short


@pytest.mark.parametrize("name", table.DAMAGED)
def test_a_damaged_picture_is_refused_by_name(name, folder):
    """BVLC shows a JPEG that is cut short filled with grey (files) or black (LMDB), and a window of it as zeros."""
    for ask in table.READERS.values():
        with pytest.raises((ValueError, OSError), match=name.replace(".", r"\.")):
            ask(caffe, folder, name)
    with pytest.raises(pictures.PictureError, match=name):
        pictures.decode(table.DAMAGED[name], False, name)
    with pytest.raises(convert_imageset.UnreadableError, match=f"Could not open or find file .*{name}: expected an im"):
        convert_imageset.image_datum(f"{folder}/{name}", 0, None, True, "")


def test_a_turned_record_is_warned_of_once_a_database(tmp_path, capfd):
    table.write(str(tmp_path))
    table.data(caffe, str(tmp_path), "turned6.jpg", "force_color: true")
    assert "EXIF" not in capfd.readouterr().err
    table.data(caffe, str(tmp_path), "turned6.jpg")
    said = capfd.readouterr().err
    assert said.count("record 'turned6.jpg' of ") == 1
    assert "has the EXIF orientation 6, which a Data layer does not apply" in said and "tools/create_lmdb.py" in said
    table.data(caffe, str(tmp_path), "turned6.jpg")
    table.data(caffe, str(tmp_path), "rgb.jpg")
    assert "EXIF" not in capfd.readouterr().err


def test_convert_imageset_says_that_it_stores_a_turned_file(tmp_path, capfd):
    table.write(str(tmp_path))
    (tmp_path / "list.txt").write_text("rgb.jpg 0\ncut.jpg 1\n\nturned6.jpg 2\nturned8.jpg 3\n")
    words = [f"{tmp_path}/", str(tmp_path / "list.txt")]
    assert convert_imageset.main(["-encoded", *words, str(tmp_path / "encoded")]) == 0
    said = capfd.readouterr().err
    assert said.count("EXIF orientation") == 1 and "turned6.jpg: stored as the file is" in said
    assert f"Could not open or find file {tmp_path}/cut.jpg: expected an image, found a JPEG cut short" in said
    assert convert_imageset.main([*words, str(tmp_path / "raw")]) == 0
    assert "EXIF" not in capfd.readouterr().err
    for name in ("encoded", "raw"):  # the numbers of the lines, an empty one counted, as in BVLC's keys
        keys = [key for key, _ in Database(str(tmp_path / name), caffe_pb2.DataParameter.LMDB)]
        assert keys == ["00000000_rgb.jpg", "00000003_turned6.jpg", "00000004_turned8.jpg"]


def test_compute_image_mean_names_the_record_that_is_no_picture(tmp_path, capfd):
    datum = caffe_pb2.Datum(data=table.DAMAGED["cut.jpg"], encoded=True).SerializeToString()
    for name, record, reason in (("cut", datum, "a JPEG cut short"), ("none", b"\xff\xff", "2 bytes that do not")):
        with lmdb.open(str(tmp_path / name), map_size=1 << 20) as environment, environment.begin(write=True) as records:
            records.put(b"key", record)
        assert compute_image_mean.main([str(tmp_path / name)]) == 1
        assert f"{name}, record key: " in (said := capfd.readouterr().err) and reason in said
