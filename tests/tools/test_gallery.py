"""The gallery: which queries, which neighbours, and that the images are those of the codes."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pytest
from caffe.proto import caffe_pb2
from dhn.datasets import lmdb_build
from dhn.datasets.labelled_images import from_arrays
from dhn.pages import gallery


def lmdb_of(path, images, labels, **how):
    np.savez(path.with_suffix(".npz"), images=images, labels=labels)
    lmdb_build.build(from_arrays(path.with_suffix(".npz")), path, **how)
    return path


def datum_of(data: bytes, **labels) -> caffe_pb2.Datum:
    return caffe_pb2.Datum(channels=1, height=2, width=2, data=data, **labels)


def pixels_of(picture: gallery.Picture) -> np.ndarray:
    raw = base64.b64decode(picture.uri.split(",")[1])
    return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)


def test_queries_are_chosen_by_class_in_turn():
    labels = np.eye(3, dtype=np.uint8)[[2, 0, 0, 2, 1, 0]]
    assert gallery.choose(labels, 3) == [1, 4, 0]
    assert gallery.choose(labels, 4) == [1, 2, 4, 0]
    assert gallery.choose(labels, 5) == [1, 2, 4, 0, 3]
    assert sorted(gallery.choose(labels, 99)) == list(range(6))
    labels[5] = 0  # carries no label
    assert gallery.choose(labels, 4) == [1, 4, 0, 5]


@pytest.mark.parametrize("real", [False, True])
def test_nearest_are_those_of_a_plain_loop(real):
    random = np.random.RandomState(0)
    query, database = random.randn(4, 6).astype(np.float32), random.randn(50, 6).astype(np.float32)
    query[0, 0] = database[3, 0] = 0  # counts as +1
    order, distances, within = gallery.nearest(query, database, 7, real)
    for one, items, row, count in zip(query, order, distances, within, strict=True):
        hamming = [sum((a >= 0) != (b >= 0) for a, b in zip(one, each, strict=True)) for each in database]
        ranks = -(database @ one) if real else hamming
        assert items.tolist() == sorted(range(50), key=lambda item, ranks=ranks: ranks[item])[:7]
        assert row.tolist() == [hamming[item] for item in items]
        assert count == sum(distance <= row[-1] for distance in hamming)


def test_fewer_images_than_neighbours():
    order, distances, within = gallery.nearest(np.ones((1, 4), np.float32), np.ones((3, 4), np.float32), 10)
    assert order.tolist() == [[0, 1, 2]] and distances.tolist() == [[0, 0, 0]] and within.tolist() == [3]


def test_grey_images_are_kept_as_they_are(tmp_path):
    images = np.random.RandomState(1).randint(0, 256, (5, 28, 28), np.uint8)
    path = lmdb_of(tmp_path / "query_lmdb", images, np.array([0, 1, 2, 0, 1]))
    found = gallery.read_pictures(path, 5, [3, 1], 3)
    assert sorted(found) == [1, 3] and all(each.small for each in found.values())
    for place, each in found.items():
        assert np.array_equal(pixels_of(each), images[place])
    assert found[1].labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("encode", ["raw", "jpg"])
def test_colour_images_become_thumbnails(tmp_path, encode):
    images = np.zeros((2, 200, 300, 3), np.uint8)
    images[:, :, 50:250] = 200, 120, 40  # RGB; the square in the middle is of one colour
    path = lmdb_of(tmp_path / "query_lmdb", images, np.array([[1, 0, 1], [0, 0, 0]]), encode=encode)
    found = gallery.read_pictures(path, 2, [0], 3)[0]
    pixels = pixels_of(found)
    assert pixels.shape == (gallery.THUMBNAIL, gallery.THUMBNAIL, 3) and not found.small
    assert np.abs(pixels.astype(int) - (40, 120, 200)).max() < 12
    assert found.labels.tolist() == [1, 0, 1]


def test_hits_share_a_label(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    folders = (lmdb_of(tmp_path / "q_lmdb", images[:1], labels[1:2]), lmdb_of(tmp_path / "d_lmdb", images, labels))
    codes = np.array([[1, 1], [1, -1], [-1, -1], [1, 1]], np.float32)
    (row,) = gallery.gallery((codes[:1], labels[1:2]), (codes, labels), folders)
    assert [(each.hit, each.distance) for each in row.neighbours] == [(True, 0), (False, 0), (True, 1), (False, 2)]
    assert row.within == 4


def test_images_of_other_codes_are_refused(tmp_path):
    images, labels = np.zeros((3, 8, 8), np.uint8), np.eye(3, dtype=np.uint8)
    path = lmdb_of(tmp_path / "d_lmdb", images, labels)
    codes = np.ones((3, 2), np.float32)
    with pytest.raises(gallery.GalleryError, match="d_lmdb holds 3 images and there are 4 codes"):
        gallery.read_pictures(path, 4, [0], 3)
    with pytest.raises(gallery.GalleryError, match="image 0 carries other labels than its codes"):
        gallery.gallery((codes, labels[::-1]), (codes, labels), (path, path))
    with pytest.raises(gallery.GalleryError, match="query_lmdb is missing"):
        gallery.read_pictures(tmp_path / "query_lmdb", 3, [0], 3)
    with pytest.raises(gallery.GalleryError, match="holds no grey or BGR image"):
        gallery.picture("record", datum_of(b"1").SerializeToString(), 3)
    (path / "data.mdb").write_bytes(b"no lmdb" * 1000)
    with pytest.raises(gallery.GalleryError, match="cannot be read"):
        gallery.read_pictures(path, 3, [0], 3)


def test_unknown_labels_are_no_class_and_hit_nothing(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    labels = np.array([[1, 0], [-1, -1], [0, 1], [-1, -1]], np.int8)
    folders = (lmdb_of(tmp_path / "q_lmdb", images, labels), lmdb_of(tmp_path / "d_lmdb", images, labels))
    codes = np.ones((4, 2), np.float32)
    assert gallery.choose(labels, 4) == [0, 2, 1, 3]
    rows = gallery.gallery((codes, labels), (codes, labels), folders)
    assert [[each.hit for each in row.neighbours] for row in rows] == [
        [True, False, False, False],
        [False, False, True, False],
        [False] * 4,
        [False] * 4,
    ]


def test_a_class_number_in_label_counts_as_the_codes_have_it():
    for labels, expected in (
        ({"label": 2}, [0, 0, 1]),
        ({"label": -1}, [-1, -1, -1]),
        ({"float_data": [1, 0, 1], "label": 0}, [1, 0, 1]),
        ({}, [-1, -1, -1]),
    ):
        record = datum_of(b"1234", **labels).SerializeToString()
        assert gallery.picture("record", record, 3).labels.tolist() == expected
    with pytest.raises(gallery.GalleryError, match=r"record.*expected a class number from 0 to 2.*found 3"):
        gallery.picture("record", datum_of(b"1234", label=3).SerializeToString(), 3)


def test_a_picture_that_is_cut_short_is_named():
    whole = cv2.imencode(".jpg", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
    cut = caffe_pb2.Datum(encoded=True, channels=3, height=40, width=40, label=0, data=whole[:-100])
    with pytest.raises(gallery.GalleryError, match="record: expected a picture, found a JPEG that is cut short"):
        gallery.picture("record", cut.SerializeToString(), 3)
