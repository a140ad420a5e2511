"""The data layer: order, pictures, labels, and what it says of bad records."""

import gc
import json
import os
import signal
import threading
import time

import caffe
import cv2
import lmdb
import numpy as np
import picture_kinds as table
import pictures
import pytest
from caffe.proto import caffe_pb2
from image_records import ListSource, LmdbSource, Prefetcher
from multilabel_data import Batches

PICTURES = table.pictures()
COUNT, C = 10, 3
IMAGES = np.random.RandomState(0).randint(256, size=(COUNT, 1, 6, 8)).astype(np.uint8)
LABELS = np.random.RandomState(1).randint(2, size=(COUNT, C)).astype(np.float32)


def datum(image, labels=(), label=0, encoded=False):
    channels, height, width = image.shape
    message = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    message.float_data.extend(float(value) for value in labels)
    message.data = image.tobytes()
    if encoded:
        message.encoded = True
        message.data = cv2.imencode(".png", image.transpose(1, 2, 0))[1].tobytes()
    return message


def write_lmdb(path, records):
    env = lmdb.open(str(path), map_size=1 << 24)
    with env.begin(write=True) as txn:
        for index, record in enumerate(records):
            value = record if isinstance(record, bytes) else record.SerializeToString()
            txn.put(f"{index:08d}_{index}.png".encode(), value)
    env.close()
    return str(path)


@pytest.fixture
def source(tmp_path):
    return write_lmdb(tmp_path / "lmdb", [datum(*pair) for pair in zip(IMAGES, LABELS, strict=True)])


def make_net(folder, phase=caffe.TRAIN, tops='top: "data" top: "label"', **settings):
    path = folder / "net.prototxt"
    path.write_text(f"""layer {{ name: "data" type: "Python" {tops} python_param {{
        module: "multilabel_data" layer: "MultiLabelDataLayer" param_str: '{json.dumps(settings)}' }} }}""")
    return caffe.Net(str(path), phase)


def take(net, batches):
    """The images and labels of the next batches, joined."""
    images, labels = [], []
    for _ in range(batches):
        net.forward()
        images.append(net.blobs["data"].data.copy())
        labels.append(net.blobs["label"].data.copy())
    return np.concatenate(images), np.concatenate(labels)


def records_of(images):
    """Which record each image is (unprepared images only)."""
    return [int(np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3)))[0]) for image in images]


def test_in_test_the_order_is_that_of_the_source_and_goes_round(tmp_path, source):
    net = make_net(tmp_path, caffe.TEST, source=source, batch_size=4, shuffle=True, mirror=True, seed=9)
    images, labels = take(net, 5)
    np.testing.assert_array_equal(images, np.concatenate([IMAGES, IMAGES]))
    np.testing.assert_array_equal(labels, np.concatenate([LABELS, LABELS]))
    assert net.blobs["data"].data.shape == (4, 1, 6, 8) and net.blobs["label"].data.shape == (4, C)


def test_each_training_epoch_is_shuffled_afresh(tmp_path, source):
    images, labels = take(make_net(tmp_path, source=source, batch_size=5), 6)
    order = records_of(images)
    epochs = [order[:10], order[10:20], order[20:]]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3 and list(range(COUNT)) not in epochs
    np.testing.assert_array_equal(labels, LABELS[order])


def test_order_comes_from_the_seed_alone(tmp_path, source):
    def order(**settings):
        return records_of(take(make_net(tmp_path, source=source, batch_size=4, **settings), 10)[0])

    expected = np.concatenate([np.random.RandomState(1).permutation(COUNT)[:4]])
    assert order()[:4] == expected.tolist()
    assert order() == order(seed=1, prefetch=1, threads=8)
    assert order(seed=2) != order()
    assert order(shuffle=False) == [*range(COUNT)] * 4


def test_batches_cross_the_end_of_an_epoch(tmp_path, source):
    order = records_of(take(make_net(tmp_path, source=source, batch_size=4), 5)[0])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(COUNT))


def test_mean_scale_and_mirror(tmp_path, source):
    net = make_net(tmp_path, source=source, batch_size=10, shuffle=False, mirror=True, mean_value=100.5, scale=0.25)
    straight = ((IMAGES - np.float32(100.5)) * np.float32(0.25)).astype(np.float32)
    mirrored = 0
    for _ in range(20):
        for got, expected in zip(take(net, 1)[0], straight, strict=True):
            flipped = not np.array_equal(got, expected)
            mirrored += flipped
            np.testing.assert_array_equal(got, expected[:, :, ::-1] if flipped else expected)
    assert 70 <= mirrored <= 130


def test_crop_is_central_in_test_and_everywhere_in_training(tmp_path, source):
    images, _ = take(make_net(tmp_path, caffe.TEST, source=source, batch_size=10, crop=[3, 5]), 1)
    np.testing.assert_array_equal(images, IMAGES[:, :, 1:4, 1:6])
    images, _ = take(make_net(tmp_path, source=source, batch_size=10, crop=[3, 5], shuffle=False), 60)
    places = set()
    for index, image in enumerate(images):
        record = IMAGES[index % COUNT]
        places |= {(y, x) for y in range(4) for x in range(4) if np.array_equal(image, record[:, y : y + 3, x : x + 5])}
    assert places == {(y, x) for y in range(4) for x in range(4)}


def test_mean_file_is_cropped_and_mirrored_with_the_image(tmp_path, source):
    mean = IMAGES.mean(axis=0, dtype=np.float32)
    blob = caffe.io.array_to_blobproto(mean[None])
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    net = make_net(
        tmp_path,
        source=source,
        batch_size=10,
        shuffle=False,
        mirror=True,
        crop=[3, 5],
        mean_file=str(tmp_path / "mean.binaryproto"),
    )
    for image, record in zip(take(net, 1)[0], IMAGES - mean, strict=True):
        windows = [record[:, y : y + 3, x : x + 5] for y in range(4) for x in range(4)]
        assert any(np.allclose(image, w) or np.allclose(image, w[:, :, ::-1]) for w in windows)


def test_mean_per_channel_and_colour(tmp_path):
    image = np.random.RandomState(2).randint(256, size=(3, 4, 4)).astype(np.uint8)
    source = write_lmdb(tmp_path / "lmdb", [datum(image, LABELS[0]), datum(image, LABELS[0], encoded=True)])
    net = make_net(tmp_path, caffe.TEST, source=source, batch_size=2, mean_value=[1, 2, 3])
    images, _ = take(net, 1)
    for got in images:
        np.testing.assert_array_equal(got, image - np.array([1, 2, 3], np.float32).reshape(3, 1, 1))
    gray, _ = take(make_net(tmp_path, caffe.TEST, source=source, batch_size=2, gray=True), 1)
    assert gray.shape == (2, 1, 4, 4)
    np.testing.assert_array_equal(gray[0, 0], cv2.cvtColor(image.transpose(1, 2, 0), cv2.COLOR_BGR2GRAY))


def test_gray_records_as_colour_and_resized(tmp_path, source):
    images, _ = take(make_net(tmp_path, caffe.TEST, source=source, batch_size=1, gray=False, resize=[12, 16]), 1)
    assert images.shape == (1, 3, 12, 16)
    np.testing.assert_array_equal(images[0, 2], cv2.resize(IMAGES[0, 0], (16, 12)))


def test_labels_from_the_class_index_and_unknown(tmp_path):
    source = write_lmdb(tmp_path / "lmdb", [datum(IMAGES[0], label=2), datum(IMAGES[1], label=-1)])
    _, labels = take(make_net(tmp_path, caffe.TEST, source=source, batch_size=2, labels=3), 1)
    np.testing.assert_array_equal(labels, [[0, 0, 1], [-1, -1, -1]])


def test_label_top_may_be_left_out(tmp_path, source):
    net = make_net(tmp_path, caffe.TEST, 'top: "data"', source=source, batch_size=2)
    assert list(net.forward()) == ["data"]


def test_list_file(tmp_path):
    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.png"), IMAGES[index, 0])
    (tmp_path / "list.txt").write_text("0.png 1 0 1\n2.png -1 -1 -1\n\n1.png 0 0 0\n")
    net = make_net(tmp_path, caffe.TEST, source=str(tmp_path / "list.txt"), root=str(tmp_path), batch_size=3, gray=True)
    images, labels = take(net, 1)
    np.testing.assert_array_equal(images, IMAGES[[0, 2, 1]])
    np.testing.assert_array_equal(labels, [[1, 0, 1], [-1, -1, -1], [0, 0, 0]])
    (tmp_path / "list.txt").write_text("0.png 1\n1.png 0\n")
    source = ListSource(str(tmp_path / "list.txt"), str(tmp_path), 2, None, None)
    assert source.read(0)[0].shape == (3, 6, 8)
    np.testing.assert_array_equal([source.read(i)[1] for i in (0, 1)], [[0, 1], [1, 0]])


def test_one_class_means_the_same_in_a_list_and_in_an_lmdb(tmp_path):
    for index in range(2):
        cv2.imwrite(str(tmp_path / f"{index}.png"), IMAGES[index, 0])
    (tmp_path / "list.txt").write_text("0.png 0\n1.png -1\n")
    records = [datum(IMAGES[0], label=0), datum(IMAGES[1], label=-1)]
    vectors = [datum(IMAGES[0], [1], label=0), datum(IMAGES[1], [-1], label=-1)]  # as tools/create_lmdb.py writes them
    sources = [
        ListSource(str(tmp_path / "list.txt"), str(tmp_path), 1, None, None),
        LmdbSource(write_lmdb(tmp_path / "numbers", records), 1, None, None),
        LmdbSource(write_lmdb(tmp_path / "vectors", vectors), None, None, None),
    ]
    for source in sources:
        assert [source.read(index)[1].tolist() for index in range(2)] == [[1], [-1]]


def test_paths_of_a_list(tmp_path):
    folder = tmp_path / "my pictures"
    folder.mkdir()
    for index, name in enumerate(("a 1.png", "caf\u00e9.png")):
        cv2.imwrite(str(folder / name), IMAGES[index, 0])
    cv2.imwrite(str(folder / "x.png"), IMAGES[2, 0])
    (folder / "x.png").rename(folder / "caf\udce9.png")
    lines = f"a 1.png 1 0\r\n/caf\u00e9.png\t0 1\r\n{folder}/a 1.png 0 0\r\n".encode()
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + lines + b"caf\xe9.png 1 1\r\n")
    source = ListSource(str(tmp_path / "list.txt"), str(folder), None, True, None)
    for index, image in enumerate((0, 1, 0, 2)):
        np.testing.assert_array_equal(source.read(index)[0], IMAGES[image])
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9.png 1 0\n")
    net = make_net(
        tmp_path,
        caffe.TEST,
        source=str(tmp_path / "latin.txt"),
        root=str(folder),
        encoding="latin-1",
        batch_size=1,
        gray=True,
    )
    np.testing.assert_array_equal(take(net, 1)[0], IMAGES[1:2])


def test_without_labels_where_they_are_optional(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), IMAGES[0, 0])
    (tmp_path / "list.txt").write_text("0.png\n")
    record = caffe_pb2.Datum(channels=1, height=6, width=8, data=IMAGES[0].tobytes())
    path = write_lmdb(tmp_path / "lmdb", [record])
    for labels, row in ((None, [-1]), (3, [-1, -1, -1])):
        listed = ListSource(str(tmp_path / "list.txt"), str(tmp_path), labels, None, None, optional=True)
        stored = LmdbSource(path, labels, None, None, optional=True)
        assert listed.read(0)[1].tolist() == stored.read(0)[1].tolist() == row
        assert listed.labels == stored.labels == len(row)
    with pytest.raises(ValueError, match=r"key '00000000_0.png': expected a label vector .*, found neither"):
        LmdbSource(path, 3, None, None).read(0)


def test_a_picture_is_the_same_from_a_list_and_from_an_lmdb(tmp_path):
    names = ["orientation 6 <.jpg", "orientation 3.png", "16-bit.png", "alpha.png", "palette.png", "cmyk.jpg"]
    records = []
    for name in names:
        data, *_ = PICTURES[name]
        (tmp_path / name).write_bytes(data)
        records.append(caffe_pb2.Datum(encoded=True, data=data, float_data=[1, 0], label=0))
    (tmp_path / "list.txt").write_text("".join(f"{name} 1 0\n" for name in names))
    path = write_lmdb(tmp_path / "lmdb", records)
    for gray in (None, False, True):
        listed = ListSource(str(tmp_path / "list.txt"), str(tmp_path), None, gray, None)
        stored = LmdbSource(path, None, gray, None)
        for index, name in enumerate(names):
            expected = pictures.decode(PICTURES[name][0], gray, name).transpose(2, 0, 1)
            np.testing.assert_array_equal(stored.read(index)[0], expected)
            np.testing.assert_array_equal(listed.read(index)[0], expected)


@pytest.mark.parametrize(("place", "content", "reason"), [(0, bytes(8192), "not an LMDB"), (8202, b"\x04", "page 2")])
def test_a_damaged_lmdb_is_named(tmp_path, place, content, reason):
    folder = tmp_path / "damaged"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"0", bytes(9))
    with (folder / "data.mdb").open("r+b") as file:
        file.seek(place)  # both meta pages, or the flags of the leaf after them
        file.write(content)
    with pytest.raises(ValueError, match=f"LMDB .*damaged' cannot be read: .*{reason}.* build it again"):
        LmdbSource(str(folder), 1, None, None)


def test_a_key_that_is_listed_and_not_found_is_named(tmp_path):
    """In a page whose keys are no longer sorted."""
    folder = write_lmdb(tmp_path / "lmdb", [datum(IMAGES[0], LABELS[0])] * 9)
    file = tmp_path / "lmdb" / "data.mdb"
    keys = LmdbSource(folder, None, None, None)._lmdb.keys
    file.write_bytes(file.read_bytes().replace(keys[1], b"z" + keys[1][1:]))
    source = LmdbSource(folder, None, None, None)
    with pytest.raises(ValueError, match=r"LMDB .*lmdb' lists the key 'z.*' and does not find it: it is damaged"):
        for index in range(9):
            source.read(index)


def test_an_lmdb_that_was_cut_off_is_refused(tmp_path):
    """Wherever it was cut: a record in the missing part would kill the process by SIGBUS."""
    folder = write_lmdb(tmp_path / "lmdb", [datum(IMAGES[0], LABELS[0])] * 40)
    file = tmp_path / "lmdb" / "data.mdb"
    for size in range(file.stat().st_size - 1, -1, -1500):
        os.truncate(file, size)
        with pytest.raises(ValueError, match=r"LMDB .*lmdb' cannot be read: .*build it again"):
            LmdbSource(str(folder), None, None, None)


def test_a_picture_that_is_cut_short_is_named(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(table.broken()["cut jpeg 4"] + b"\0" * 40)
    (tmp_path / "list.txt").write_text("\ncut.jpg 1 0\n")
    with pytest.raises(ValueError, match=r"list.txt:2: cut.jpg: expected a picture, found a JPEG that is cut short"):
        make_net(tmp_path, source=str(tmp_path / "list.txt"), root=str(tmp_path), batch_size=1)


@pytest.mark.parametrize(
    "lines, labels, message",
    [
        ("", None, "list.txt: expected at least one line"),
        ("a.png 1 0\nb.png 1\n", None, "list.txt:2: expected a path and 2 whole numbers, as on line 1, found 1"),
        ("a.png 1\nb.png 1 0\n", 2, "list.txt:2: expected a path and 1 whole number, as on line 1, found 2"),
        ("a.png x\n", 3, "list.txt:1: expected a path and its labels .*, found 0 in 'a.png x'"),
        ("a.png 1\n\nb.png 3\n", 3, "list.txt:3: expected a class number from 0 to 2, or -1 for unknown; found 3"),
        ("a.png 1\n", 1, "list.txt:1: expected a class number from 0 to 0, or -1 for unknown; found 1"),
        ("a.png 1\n", None, "list.txt:1: one number a line is a class number; say how many classes"),
        ("a.png 1 0\n", 3, "list.txt: expected label vectors of 3 labels, found 2"),
        ("a.png 1 0\nb.png 2 0\n", None, "list.txt:2: expected label vectors of 0 and 1, or -1 throughout; found 2"),
        ("a.png 1 0\nb.png 1 -1\n", 2, "list.txt:2: .* found -1 among other labels. Write 0"),
        ("a.png 99999999999\n", 3, "list.txt:1: .* found 99999999999"),
        ("a.png\n", None, "list.txt:1: expected a path and its labels .*, found 0"),
    ],
)
def test_bad_lists(tmp_path, lines, labels, message):
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(ValueError, match=message):
        ListSource(str(tmp_path / "list.txt"), "", labels, None, None)


def test_missing_image_of_a_list_is_named_by_its_line(tmp_path):
    (tmp_path / "list.txt").write_text("a.png 1 0\n")
    with pytest.raises(FileNotFoundError, match=r"list.txt:1: a.png: cannot read .*nowhere/a.png"):
        make_net(tmp_path, source=str(tmp_path / "list.txt"), root="nowhere", batch_size=1)


@pytest.mark.parametrize(
    "bad, message",
    [
        (b"\xff\xff", "expected a Datum, found 2 bytes"),
        (datum(IMAGES[0], [1]), "expected label vectors of 3 labels, found 1"),
        (datum(IMAGES[0], [1, 0.5, 0]), "expected label vectors of 0 and 1 or whole class numbers, found 0.5"),
        (datum(IMAGES[0], [1, 0, 7]), "expected label vectors of 0 and 1, or -1 throughout; found 7"),
        (
            caffe_pb2.Datum(channels=1, height=6, width=8, float_data=[0.5] * 48),
            "found a picture of 48 values in float_data; only Caffe's Data layer reads such records",
        ),
        (datum(IMAGES[0][:, :5], LABELS[0]), "expected 6x8 pixels as in the first image, found 5x8"),
        (datum(np.repeat(IMAGES[0], 3, 0), LABELS[0]), "expected 1 channels as in the first image, found 3"),
        (
            caffe_pb2.Datum(channels=1, height=6, width=8, data=b"12", float_data=LABELS[0]),
            "expected 1x6x8 bytes .* found 2",
        ),
        (caffe_pb2.Datum(encoded=True, data=b"no image", float_data=LABELS[0]), "a picture that OpenCV .* can decode"),
        (caffe_pb2.Datum(encoded=True, float_data=LABELS[0]), "expected a picture, found 0 bytes"),
    ],
)
def test_a_bad_record_surfaces_in_forward_with_its_key(tmp_path, bad, message):
    records = [datum(*pair) for pair in zip(IMAGES, LABELS, strict=True)]
    records[7] = bad
    net = make_net(tmp_path, caffe.TEST, source=write_lmdb(tmp_path / "lmdb", records), batch_size=5)
    net.forward()  # the first five are good
    for _ in range(2):  # and it does not hang when asked again
        with pytest.raises(ValueError, match=rf"key '00000007_7.png': .*{message}"):
            net.forward()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"source": "no/such"}, "source 'no/such' must be an LMDB folder"),
        ({"mean_value": 1, "mean_file": "m"}, "mean_value or mean_file; found both"),
        ({"mean_value": [1, 2]}, r"expected a mean for images of \(1, 6, 8\)"),
        ({"crop": 7}, "expected at least 7x7 pixels to crop from, found 6x8"),
        ({"labels": 4}, "expected label vectors of 4 labels, found 3"),
        ({"batchsize": 4}, "unknown key 'batchsize'; the keys are batch_size, crop,"),
        ({"batch_size": 2147483647}, "blob size exceeds INT_MAX|takes more memory"),
        ({"batch_size": 0}, "'batch_size' must be an integer from 1 to 2147483647"),
    ],
)
def test_refusals(tmp_path, source, settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        make_net(tmp_path, **{"source": source, "batch_size": 2, **settings})


def test_class_index_alone_needs_the_number_of_classes(tmp_path):
    source = write_lmdb(tmp_path / "lmdb", [datum(IMAGES[0], label=2)])
    with pytest.raises(ValueError, match="say how many classes there are with the key 'labels'"):
        LmdbSource(source, None, None, None)


def test_empty_lmdb_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold at least one record; found none"):
        LmdbSource(write_lmdb(tmp_path / "lmdb", []), 3, None, None)


def test_two_layers_read_one_lmdb(tmp_path, source):
    nets = [make_net(tmp_path, caffe.TEST, source=source, batch_size=COUNT) for _ in range(2)]
    for net in nets:
        np.testing.assert_array_equal(take(net, 1)[0], IMAGES)


def test_an_lmdb_that_the_process_has_open_already_is_read(tmp_path, source):
    def read():
        net = make_net(tmp_path, caffe.TEST, source=source, batch_size=COUNT)
        np.testing.assert_array_equal(take(net, 1)[0], IMAGES)

    with lmdb.open(source, readonly=True, lock=False) as script:
        read()
        assert script.stat()["entries"] == COUNT
    net = make_net(tmp_path, caffe.TEST, source=source, batch_size=COUNT)
    with lmdb.open(source, readonly=True, lock=False) as script:
        assert script.stat()["entries"] == COUNT
    np.testing.assert_array_equal(take(net, 1)[0], IMAGES)
    (tmp_path / "data.prototxt").write_text(f"""layer {{ name: "data" type: "Data" top: "data" top: "label"
        data_param {{ source: "{source}" batch_size: 2 backend: LMDB }} }}""")
    data = caffe.Net(str(tmp_path / "data.prototxt"), caffe.TEST)
    read()
    np.testing.assert_array_equal(data.forward()["data"], IMAGES[:2])


def test_a_forked_child_goes_on_as_its_parent_does(tmp_path, source):
    net = make_net(tmp_path, source=source, batch_size=3)
    take(net, 2)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # a child that waits for its parent's thread would wait for ever
        os.write(writing, bytes(records_of(take(net, 4)[0])))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert list(os.read(reading, 100)) == records_of(take(net, 4)[0])
    os.close(reading), os.close(writing)


def test_the_thread_ends_with_its_layer(tmp_path, source):
    before = threading.active_count()
    net = make_net(tmp_path, source=source, batch_size=2, threads=2)
    net.forward()
    assert threading.active_count() > before
    del net
    gc.collect()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_prefetcher_keeps_order_and_depth():
    built = []

    def build(plan, map_):
        built.append(plan)
        return list(map_(lambda x: x + 1, [plan]))

    ahead = Prefetcher(iter(range(100)), build, depth=2, threads=2)
    assert ahead.next() == [1]
    time.sleep(0.2)
    assert len(built) <= 4  # one taken, two waiting, one in hand
    assert [ahead.next() for _ in range(3)] == [[2], [3], [4]]


def test_the_source_caches_what_it_decoded(source, monkeypatch):
    records = LmdbSource(source, None, None, None)
    batches = Batches(records, COUNT, train=False)
    plan = next(batches.plans())
    batches.build(plan, map)
    monkeypatch.setattr(records, "_load", None)  # a second read of a record would call it
    np.testing.assert_array_equal(batches.build(plan, map)[0], IMAGES)


@pytest.mark.parametrize(("resize", "handed"), [(None, 0), ((7, 9), 1)])
def test_small_pictures_are_not_handed_to_threads(source, resize, handed):
    calls = []
    batches = Batches(LmdbSource(source, None, None, resize), COUNT, train=False)
    batches.build(next(batches.plans()), lambda *arguments: (calls.append(arguments), map(*arguments))[1])
    assert len(calls) == handed


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x08\x07", b""])
def test_a_damaged_mean_file_is_named(tmp_path, source, content):
    (tmp_path / "mean.binaryproto").write_bytes(content)
    with pytest.raises(ValueError, match=r"mean_file '.*mean\.binaryproto': expected a mean image \(binaryproto\)"):
        make_net(tmp_path, source=source, batch_size=1, mean_file=str(tmp_path / "mean.binaryproto"))


@pytest.mark.parametrize("state", [b"", b"\xff", b"[" * 100_000, b"[]", b'{"records": 10, "done": [3]}'])
def test_a_state_that_is_none_is_refused(tmp_path, source, state):
    layer = make_net(tmp_path, source=source, batch_size=3).layers[0]
    with pytest.raises(ValueError, match="expected how many batches it had handed out, found another text"):
        layer.restore_state(state)
