"""Data layers where the answer is random, refused, or about threads; the rest is in ../test_recorded_data.py."""

import gc
import signal
import threading

import caffe
import cv2
import fixtures
import image_records
import lmdb
import numpy as np
import pytest
from caffe import layer
from caffe.blob import Blob
from caffe.data.prefetch import Prefetcher
from caffe.proto import caffe_pb2, text


def make(prototxt, tops=2, phase=caffe.TEST):
    """(layer, tops) of a LayerParameter's text, set up as a net does."""
    param = text.parse(prototxt, caffe_pb2.LayerParameter(name="d", phase=phase))
    made, top = layer.create(param), [Blob() for _ in range(tops)]
    made.check_counts([], top)
    made.setup([], top)
    made.reshape([], top)
    return made, top


def batches(prototxt, count, phase=caffe.TRAIN, seed=7):
    caffe.set_random_seed(seed)
    made, top = make(prototxt, phase=phase)
    result = []
    for _ in range(count):
        made.forward([], top)
        result.append((top[0].data.copy(), top[1].data.copy()))
    return result


def datum(pixels, label=0, **more):
    channels, height, width = pixels.shape
    fields = dict({"channels": channels, "height": height, "width": width, "data": pixels.tobytes()}, **more)
    return caffe_pb2.Datum(label=label, **fields).SerializeToString()


def encoded(pixels, label=0):
    """pixels: uint8 (H, W, C)."""
    data = cv2.imencode(".png", pixels)[1].tobytes()
    return caffe_pb2.Datum(label=label, data=data, encoded=True).SerializeToString()


def write_lmdb(folder, values):
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for index, value in enumerate(values):
            transaction.put(b"%08d_x.png" % index, value)
    return folder


def data(folder, more="batch_size: 4", transform=""):
    return f"type: 'Data' data_param {{ source: '{folder}' backend: LMDB {more} }} transform_param {{ {transform} }}"


@pytest.fixture
def pictures(tmp_path):
    """20 encoded pictures whose pixels tell picture, row and column."""
    rows, columns = np.mgrid[0:9, 0:10]
    pixels = [np.stack([np.full((9, 10), i), rows, columns], axis=2).astype(np.uint8) for i in range(20)]
    return write_lmdb(tmp_path / "pictures", [encoded(each, i) for i, each in enumerate(pixels)])


@pytest.fixture
def images(tmp_path):
    """A list of 5 images, label = index."""
    lines = []
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((4, 5, 3), index, np.uint8))
        lines.append(f"{tmp_path}/{index}.png {index}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return tmp_path / "list.txt"


# -- random crops, mirrors and orders


def test_train_crops_and_mirrors(pictures):
    """Every place of the crop and both directions occur, drawn for each image; a crop keeps its picture whole."""
    seen = set()
    for values, labels in batches(data(pictures, "batch_size: 20", "crop_size: 7 mirror: true"), 10):
        for image, label in zip(values, labels, strict=True):
            assert (image[0] == label).all()
            top, (left, right) = image[1, 0, 0], image[2, 0, [0, -1]]
            assert (image[1] == top + np.arange(7)[:, None]).all()
            step = 1 if right > left else -1
            assert (image[2] == left + step * np.arange(7)).all()
            seen.add((top, min(left, right), step))
    assert seen == {(top, left, step) for top in range(3) for left in range(4) for step in (1, -1)}


def test_test_crops_the_centre_and_mirrors_at_random(pictures):
    [(values, _)] = batches(data(pictures, "batch_size: 20", "crop_size: 7 mirror: true"), 1, phase=caffe.TEST)
    assert (values[:, 1, 0, 0] == 1).all()
    assert set(values[:, 2, 0, 0]) == {1, 7}


def test_the_mean_image_moves_with_the_crop_and_the_mirror(tmp_path, pictures):
    mean = np.stack([np.full((9, 10), 0), *np.mgrid[0:9, 0:10]]).astype(np.float32)
    for shape in (mean, mean[None]):
        (tmp_path / "mean").write_bytes(caffe.io.array_to_blobproto(shape).SerializeToString())
        transform = f"crop_size: 7 mirror: true scale: 0.5 mean_file: '{tmp_path}/mean'"
        [(values, labels)] = batches(data(pictures, "batch_size: 20", transform), 1)
        assert (values == np.stack([labels / 2, labels * 0, labels * 0], 1)[:, :, None, None]).all()


def test_a_seed_fixes_every_batch(pictures):
    net = data(pictures, "batch_size: 16", "crop_size: 5 mirror: true")
    first, again, other = batches(net, 3), batches(net, 3), batches(net, 3, seed=8)
    for one, two in zip(first, again, strict=True):
        assert (one[0] == two[0]).all()
    assert any((one[0] != two[0]).any() for one, two in zip(first, other, strict=True))


def test_image_data_shuffles_each_epoch(images):
    net = f"type: 'ImageData' image_data_param {{ source: '{images}' batch_size: 5 shuffle: true }}"
    epochs = [tuple(labels) for _, labels in batches(net, 6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len(set(epochs)) > 3
    assert [tuple(labels) for _, labels in batches(net, 6)] == epochs
    for values, labels in batches(net, 2):
        assert (values == labels[:, None, None, None]).all()


def test_image_data_skips(images):
    net = f"type: 'ImageData' image_data_param {{ source: '{images}' batch_size: 1 rand_skip: 5 }}"
    starts = {int(batches(net, 1, seed=seed)[0][1][0]) for seed in range(40)}
    assert starts == {0, 1, 2, 3, 4}


# -- threads


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name == "caffe-prefetch"]


def test_a_prefetcher_ends_whose_thread_was_not_begun(monkeypatch):
    """A signal came between."""
    monkeypatch.setattr(threading.Thread, "start", lambda self: signal.raise_signal(signal.SIGINT))
    prefetcher = Prefetcher(int, 1)
    with pytest.raises(KeyboardInterrupt):
        prefetcher.next()
    prefetcher._finalizer()


def test_the_thread_ends_with_the_layer(pictures):
    before = len(prefetching())
    made, top = make(data(pictures, "batch_size: 3 prefetch: 2"))
    assert len(prefetching()) == before
    made.forward([], top)
    assert len(prefetching()) == before + 1
    del made
    gc.collect()
    assert len(prefetching()) == before


def test_the_thread_ends_with_the_net(pictures, tmp_path):
    before = len(prefetching())
    (tmp_path / "net.prototxt").write_text("layer { name: 'd' top: 'data' " + data(pictures) + " }")
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.forward()
    del net
    gc.collect()
    assert len(prefetching()) == before


def test_two_nets_read_one_lmdb(pictures):
    one, two = make(data(pictures)), make(data(pictures, "batch_size: 3"))
    for made, top in (one, two, one):
        made.forward([], top)
    assert list(one[1][1].data) == [4, 5, 6, 7]
    assert list(two[1][1].data) == [0, 1, 2]


def own_environment(folder):
    """As scripts open an LMDB that they have built, or look into."""
    return lmdb.open(str(folder), readonly=True)


def test_a_script_opens_the_lmdb_of_a_net_too(pictures):
    """Before and after the net, and again when either is gone: BVLC Caffe and a script do not notice one another."""
    for is_first in (True, False):
        environment = own_environment(pictures) if is_first else None
        made, top = make(data(pictures))
        environment = environment or own_environment(pictures)
        made.forward([], top)
        with environment.begin() as transaction:
            assert transaction.stat()["entries"] == 20
        environment.close()
        made.forward([], top)
        assert list(top[1].data) == [4, 5, 6, 7]
        environment = own_environment(pictures)
        del made
        gc.collect()
        with environment.begin() as transaction:
            assert transaction.get(b"00000003_x.png")
        environment.close()


def test_a_net_reads_the_lmdb_that_a_script_has_just_written_and_not_closed(tmp_path):
    environment = lmdb.open(str(tmp_path / "written"), map_size=1 << 20)
    with environment.begin(write=True) as transaction:
        transaction.put(b"0", encoded(np.full((4, 5, 3), 7, np.uint8), 3))
    made, top = make(data(tmp_path / "written", "batch_size: 2"))
    made.forward([], top)
    assert list(top[1].data) == [3, 3] and (top[0].data == 7).all()
    environment.close()


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_a_data_layer_and_a_multi_label_data_layer_and_a_script_read_one_lmdb(pictures, order):
    openers = (
        lambda: make(data(pictures)),
        lambda: image_records.LmdbSource(str(pictures), 20, None, None),
        lambda: own_environment(pictures),
    )
    opened = [openers[number]() for number in order]
    records = opened[order.index(1)]
    made, top = opened[order.index(0)]
    made.forward([], top)
    assert (records.read(3)[0] == top[0].data[3]).all() and records.read(3)[1].argmax() == top[1].data[3] == 3
    opened[order.index(2)].close()


def test_a_bad_record_is_named_when_its_batch_is_due_and_again(tmp_path):
    good = [encoded(np.zeros((4, 4, 3), np.uint8))] * 5
    bad = caffe_pb2.Datum(data=b"no image", encoded=True).SerializeToString()
    made, top = make(data(write_lmdb(tmp_path / "bad", [*good, bad]), "batch_size: 2"))
    made.forward([], top)
    made.forward([], top)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"layer 'd' \(Data\): record '00000005_x.png' of .*bad: Could not decode"):
            made.forward([], top)


def test_a_damaged_lmdb_is_named(pictures):
    """Here leaves do not call themselves so."""
    with (pictures / "data.mdb").open("r+b") as file:
        content = file.read()
        for page in range(2, len(content) // 4096):
            if content[4096 * page + 10] & 2:  # a leaf's flag
                file.seek(4096 * page + 10)
                file.write(b"\x04")
    with pytest.raises(
        ValueError, match=r"layer 'd' \(Data\): Cannot read LMDB .*pictures: page 2 .* expected a leaf.*build it again"
    ):
        make(data(pictures))


def test_a_list_is_read_as_bvlc_reads_it(images, capfd):
    """Labels by C's atoi; of the lines that have no whole number, the first is named."""
    name = f"{images.parent}/3.png"
    images.write_text(f"{name} 1\n{name} 2.0\n{name} 3,\n{name}\n")
    [(values, labels)] = batches(f"type: 'ImageData' image_data_param {{ source: '{images}' batch_size: 4 }}", 1)
    assert list(labels) == [1, 2, 3, 0] and (values == 3).all()
    said = capfd.readouterr().err
    assert said.count("as BVLC Caffe reads it") == 1
    assert f"list.txt:2: read as path '{name}' and label 2, from '{name} 2.0'" in said and "3 of 4" in said


def test_a_bad_line_is_named(images):
    images.with_name("2.png").write_bytes(b"no image")
    images.with_name("1.png").unlink()
    made, top = make(f"type: 'ImageData' image_data_param {{ source: '{images}' batch_size: 1 }}")
    made.forward([], top)
    with pytest.raises(ValueError, match=r"list.txt:2: Could not load .*1.png: .* found none that can be read: No"):
        made.forward([], top)
    images.write_text(f"{images.parent}/2.png 1\n")
    with pytest.raises(ValueError, match=r"list.txt:1: Could not load .*2.png: .* found 8 bytes that OpenCV .* cannot"):
        make(f"type: 'ImageData' image_data_param {{ source: '{images}' batch_size: 1 }}")


def test_a_handed_out_array_shows_the_next_batch(pictures):
    """net.blobs['data'].data is live."""
    made, top = make(data(pictures))
    view = top[0].data
    for first in (0, 4):
        made.forward([], top)
        assert list(view[:, 0, 0, 0]) == [first, first + 1, first + 2, first + 3]


# -- what is refused


def picture(channels, height, width):
    return np.zeros((channels, height, width), np.uint8)


@pytest.mark.parametrize(
    ("values", "more", "transform", "message"),
    [
        ([picture(3, 4, 4), picture(3, 4, 5)], "batch_size: 2", "",
         "record '00000001_x.png' of .*: the image is 3x4x5, the first one of its batch 3x4x4"),
        ([picture(3, 4, 4), picture(1, 4, 4)], "batch_size: 2", "crop_size: 2", "'00000001_x.png' .* 1x4x4"),
        ([picture(3, 4, 4), picture(3, 4, 3)], "batch_size: 2", "crop_size: 4",
         "'00000001_x.png' .*: crop_size 4 is bigger than the image, 3x4x3"),
        ([picture(3, 4, 4)], "batch_size: 1", "crop_size: 5", "crop_size 5 is bigger than the image, 3x4x4"),
        ([picture(3, 4, 4)], "batch_size: 1", "mean_value: 1 mean_value: 2",
         "Specify either 1 mean_value or as many as channels: 3; found 2"),
        ([picture(3, 4, 4)], "batch_size: 1", "mean_value: 1 mean_file: 'm'",
         "Cannot specify mean_file and mean_value at the same time"),
        ([picture(3, 4, 4)], "batch_size: 1", "force_color: true force_gray: true",
         "cannot set both force_color and force_gray"),
        ([picture(3, 4, 4)], "", "", "Positive batch size required; found batch_size 0"),
        ([picture(3, 4, 4)], "batch_size: 1 prefetch: 0", "", "expected data_param.prefetch of 1 or more"),
        ([datum(picture(3, 4, 4), width=5)], "batch_size: 1", "",
         "the Datum says 3x4x5 .*, its data holds 48 values; an encoded image needs `encoded: true`"),
        ([b"\xff\xff\xff"], "batch_size: 1", "", "expected a Datum, found 3 bytes that do not decode as one"),
        ([encoded(np.zeros((2, 2, 3), np.uint16))], "batch_size: 1", "", "must be unsigned byte, found uint16"),
    ],
)  # fmt: skip
def test_data_refuses(tmp_path, values, more, transform, message):
    records = [value if isinstance(value, bytes) else datum(value) for value in values]
    with pytest.raises(ValueError, match=message):
        made, top = make(data(write_lmdb(tmp_path / "lmdb", records), more, transform))
        made.forward([], top)


def test_mean_file_refused(tmp_path, pictures):
    mean = tmp_path / "mean"
    with pytest.raises(FileNotFoundError, match=r"layer 'd' \(Data\): .*mean"):
        make(data(pictures, transform=f"mean_file: '{mean}'"))
    mean.write_bytes(caffe.io.array_to_blobproto(np.zeros((1, 3, 4, 4))).SerializeToString())
    with pytest.raises(ValueError, match=r"the image is 3x9x10, the mean file .* has 3x4x4"):
        make(data(pictures, transform=f"mean_file: '{mean}'"))
    mean.write_bytes(caffe.io.array_to_blobproto(np.zeros((2, 3, 4, 4))).SerializeToString())
    with pytest.raises(ValueError, match=r"expected a mean image .* found shape \(2, 3, 4, 4\)"):
        make(data(pictures, transform=f"mean_file: '{mean}'"))


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ("", "batch_size: 1", "File is empty"),
        (" 1\n", "batch_size: 1", "list.txt:1: expected `path label`, the label a whole number"),
        ("a.png\n", "batch_size: 1", "list.txt:1: Could not load a.png"),
        ("a.png 1\n", "batch_size: 1", "list.txt:1: Could not load a.png"),
        ("a.png 1\n", "batch_size: 1 new_height: 3", "new_height and new_width to be set at the same time"),
        ("a.png 1\n", "batch_size: 1 new_height: 2147483648 new_width: 6", "at most 2147483647, found 2147483648"),
        ("a.png 1\n", "batch_size: 0", "Positive batch size required"),
    ],
)
def test_image_data_refuses(tmp_path, lines, more, message):
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(ValueError, match=message):
        make(f"type: 'ImageData' image_data_param {{ source: '{tmp_path}/list.txt' {more} }}")


def test_missing_sources(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"layer 'd' \(ImageData\): Cannot read the image list nowhere.txt"):
        make("type: 'ImageData' image_data_param { source: 'nowhere.txt' batch_size: 1 }")
    with pytest.raises(FileNotFoundError, match=r"layer 'd' \(Data\): Cannot open LMDB nowhere"):
        make(data("nowhere"))


def test_blob_counts():
    made = layer.create(caffe_pb2.LayerParameter(name="d", type="Input"))
    with pytest.raises(ValueError, match=r"Input Layer takes 0 bottom blob\(s\) as input; found 1"):
        made.check_counts([Blob()], [Blob()])
    with pytest.raises(ValueError, match=r"Input Layer produces at least 1 top blob\(s\) as output; found 0"):
        made.check_counts([], [])


@pytest.mark.parametrize(("size", "threads"), [(16, False), (80, True)])
def test_large_raw_images_are_made_by_threads(tmp_path, size, threads):
    pictures = fixtures.pictures(8, (3, size, size), 4)
    fixtures.write_lmdb(str(tmp_path / "lmdb"), [fixtures.datum(one, 1) for one in pictures])
    source = f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 8 }}'
    param = text.parse(f'layer {{ name: "d" type: "Data" top: "data" {source} }}', caffe_pb2.NetParameter())
    net = caffe.Net(param, caffe.TRAIN)
    assert net.layers[0]._batches.threads == threads
    np.testing.assert_array_equal(net.forward()["data"], pictures)
