"""Files that rows read, made once in a run's folder; all of it drawn, none of it measured.

photos/*.jpg, photos.txt (`path label`), photos_multilabel.txt (`path l1 ... l21`)   500x375, about 100 KB each
photos_lmdb/       the same at 256x256, JPEG-encoded, by tools/create_lmdb.py
mean.binaryproto   a mean image, 3x256x256
demo_lmdb/         1,000 pictures of 28x28, gray, JPEG-encoded, ten classes
NAME_data.prototxt, NAME.caffemodel   of FEATURES: a deploy net behind a Data layer on one of these LMDBs, drawn weights
weights.caffemodel AlexNet's weights in BVLC's form of 2013 (V1 layers), 233 MB
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import caffe
import cv2
import numpy as np
from caffe.proto import caffe_pb2, text

ROOT = Path(__file__).resolve().parents[2]
PHOTOS, DISTINCT = 2000, 100  # each drawn picture is written to several files: decoding does not get faster by that
FEATURES = {"alexnet": "fc7", "squeezenet": "fc10", "demo": "hash_layer"}  # the blobs that are extracted
EXTRACTED = {"alexnet": 400, "squeezenet": 400, "demo": 10_000}  # images of a run of extract_features
BATCH = 50
LABELS = 21  # as NUS-WIDE's


def photo(random: np.random.RandomState, height: int = 375, width: int = 500) -> np.ndarray:
    """A BGR picture with detail at every size, the finest faint, as photographs have."""
    picture = np.full((height, width, 3), 128, np.float32)
    for divisor, strength in ((64, 50), (16, 25), (4, 12), (1, 6)):
        noise = random.standard_normal((height // divisor, width // divisor, 3)).astype(np.float32)
        picture += strength * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture, 0, 255).astype(np.uint8)


def photos(folder: Path) -> None:
    """JPEG files and their two lists; paths are relative to the folder."""
    if (folder / "photos.txt").exists():
        return
    (folder / "photos").mkdir()
    random = np.random.RandomState(0)
    drawn = [cv2.imencode(".jpg", photo(random), [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes() for _ in range(DISTINCT)]
    single, multiple = [], []
    for index in range(PHOTOS):
        path = f"photos/{index:05d}.jpg"
        (folder / path).write_bytes(drawn[index % DISTINCT])
        labels = random.rand(LABELS) < 0.1
        labels[index % LABELS] = True
        single.append(f"{path} {labels.argmax()}\n")
        multiple.append(f"{path} {' '.join(map(str, labels.astype(int)))}\n")
    (folder / "photos_multilabel.txt").write_text("".join(multiple))
    (folder / "photos.txt").write_text("".join(single))


def photos_lmdb(folder: Path) -> None:
    """The photos at 256x256 as an LMDB of JPEGs, and a mean image."""
    if (folder / "mean.binaryproto").exists():
        return
    photos(folder)
    tool = [sys.executable, str(ROOT / "tools" / "create_lmdb.py"), "photos.txt", "photos_lmdb"]
    subprocess.run([*tool, "--resize", "256", "256", "--encode", "jpg"], cwd=folder, check=True, capture_output=True)
    mean = caffe_pb2.BlobProto(num=1, channels=3, height=256, width=256)
    mean.data.extend(np.random.RandomState(1).uniform(90, 130, 3 * 256 * 256).tolist())
    (folder / "mean.binaryproto").write_bytes(mean.SerializeToString())


def demo_lmdb(folder: Path) -> None:
    """Pictures of the demo's size as an LMDB of JPEGs."""
    if (folder / "demo_lmdb").exists():
        return
    random = np.random.RandomState(2)
    images = np.stack([cv2.resize(photo(random, 112, 112), (28, 28))[:, :, 0] for _ in range(1000)])
    np.savez(folder / "demo.npz", images=images, labels=np.arange(1000) % 10)
    tool = [sys.executable, str(ROOT / "tools" / "create_lmdb.py"), "demo.npz", "demo_lmdb", "--encode", "jpg"]
    subprocess.run(tool, cwd=folder, check=True, capture_output=True)


def extraction(folder: Path) -> None:
    """Nets of FEATURES that read an LMDB of JPEGs, with weights."""
    if (folder / "demo.caffemodel").exists():
        return
    sys.path.insert(0, str(ROOT / "tests" / "bench" / "sides"))
    import batch_nets

    caffe.init_log(2)  # the bench prints its table alone
    photos_lmdb(folder)
    demo_lmdb(folder)
    for name in FEATURES:
        if name == "demo":
            net, source, crop = text.read_net(ROOT / "prototxt" / "fashion_mnist" / "deploy.prototxt"), "demo_lmdb", ""
        else:
            net, source, crop = batch_nets.message(name, BATCH, deploy=True), "photos_lmdb", "crop_size: 227"
        data = f'''layer {{ name: "data" type: "Data" top: "data" transform_param {{ {crop} mean_value: 100 }}
            data_param {{ source: "{folder}/{source}" backend: LMDB batch_size: {BATCH} }} }}'''
        rest = caffe_pb2.NetParameter(name=name, layer=[each for each in net.layer if each.type != "Input"])
        path = folder / f"{name}_data.prototxt"
        path.write_text(f"{data}\n{rest}")
        caffe.Net(str(path), caffe.TEST).save(str(folder / f"{name}.caffemodel"))


def weights(folder: Path) -> None:
    """A caffemodel of full size, the one that tests/tools/test_commands_end_to_end.py fine-tunes from."""
    if not (folder / "weights.caffemodel").exists():
        path = ROOT / "tests" / "tools" / "support" / "full_size_weights.py"
        spec = importlib.util.spec_from_file_location("full_size_weights", path)
        full_size = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(full_size)
        part = full_size.v1_weights(folder / "weights.part", "bvlc_alexnet")
        os.replace(part, folder / "weights.caffemodel")
