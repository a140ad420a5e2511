"""Getting weights and the mean image from a server on loopback: checked, from mirrors, and what to do without one."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading

import get_weights
import nets as net_names
import numpy as np
import pytest
from caffe.data.transformer import DataTransformer
from caffe.io import array_to_blobproto
from caffe.proto import caffe_pb2, text
from dhn import download as download_module
from dhn import files
from dhn.weights import releases

WEIGHTS = bytes(range(256)) * 1000
SQUEEZENET = WEIGHTS[::-1]


def mean_image() -> np.ndarray:
    """An image whose channels average what the mean of ILSVRC 2012 does."""
    noise = np.random.default_rng(0).normal(size=(3, 256, 256))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    return np.float32(noise + np.reshape(releases.MEAN_BGR, (3, 1, 1))).astype(np.float64)


def archive(image: np.ndarray) -> bytes:
    """BVLC's caffe_ilsvrc12.tar.gz, as far as it matters."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in (
            ("synsets.txt", b"n01440764\n"),
            ("./imagenet_mean.binaryproto", array_to_blobproto(image[None]).SerializeToString()),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder served at an address; the releases' addresses lead there, and nowhere else."""
    folder = tmp_path / "served"
    folder.mkdir()
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{httpd.server_port}/"
    monkeypatch.setattr(download_module.time, "sleep", lambda seconds: None)
    release = releases.Release(hashlib.sha1(WEIGHTS).hexdigest(), (address + "bvlc_alexnet.caffemodel",), "norm")
    monkeypatch.setitem(releases.NETS, "bvlc_alexnet", release)
    monkeypatch.setattr(releases, "MEANS", {name: (address + name,) for name in releases.MEANS})
    yield folder, address
    httpd.shutdown()
    httpd.server_close()


def run(folder, *more: str, net: str = "bvlc_alexnet") -> int:
    return get_weights.main([net, "--folder", str(folder), *more])


def test_weights_and_mean_are_brought_and_checked(server, tmp_path, capsys):
    served, _ = server
    (served / "bvlc_alexnet.caffemodel").write_bytes(WEIGHTS)
    (served / releases.ARCHIVE).write_bytes(archive(mean_image()))
    folder = tmp_path / "weights"
    assert run(folder) == 0
    names = ["bvlc_alexnet.caffemodel", "ilsvrc_2012_mean.npy", "imagenet_mean.binaryproto"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / names[0]).read_bytes() == WEIGHTS
    np.testing.assert_array_equal(np.load(folder / names[1]), mean_image())
    param = text.parse(f'mean_file: "{folder / names[2]}"', caffe_pb2.TransformationParameter())
    np.testing.assert_array_equal(DataTransformer(param, caffe_pb2.TEST).mean, mean_image())
    for path in served.iterdir():
        path.unlink()
    assert run(folder, net="alexnet") == 0
    assert capsys.readouterr().out.count("already there") == 2


def test_the_mean_comes_from_the_npy_where_the_archive_cannot_be_had(server, tmp_path):
    served, _ = server
    (served / "bvlc_alexnet.caffemodel").write_bytes(WEIGHTS)
    np.save(served / releases.NPY, mean_image())
    assert run(tmp_path / "weights") == 0
    np.testing.assert_array_equal(releases.read_mean(tmp_path / "weights" / releases.BINARYPROTO), mean_image())


@pytest.mark.parametrize("name", [releases.BINARYPROTO, releases.NPY, releases.ARCHIVE])
def test_what_was_put_there_by_hand_is_taken(server, tmp_path, name):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "bvlc_alexnet.caffemodel").write_bytes(WEIGHTS)
    buffer = io.BytesIO()
    np.save(buffer, mean_image())
    data = {
        releases.BINARYPROTO: array_to_blobproto(mean_image()).SerializeToString(),
        releases.NPY: buffer.getvalue(),
        releases.ARCHIVE: archive(mean_image()),
    }
    (folder / name).write_bytes(data[name])
    assert run(folder) == 0
    for name in (releases.BINARYPROTO, releases.NPY):
        np.testing.assert_array_equal(releases.read_mean(folder / name), mean_image())


def test_a_mirror_of_ones_own_is_asked_first(server, tmp_path):
    served, address = server
    (served / "mine").mkdir()
    (served / "bvlc_alexnet.caffemodel").write_bytes(b"not the weights")
    (served / "mine" / "bvlc_alexnet.caffemodel").write_bytes(WEIGHTS)
    (served / "mine" / releases.ARCHIVE).write_bytes(archive(mean_image()))
    assert run(tmp_path / "weights") == 1
    assert run(tmp_path / "weights", "--mirror", address + "mine") == 0


def test_offline_it_says_which_files_to_put_where(server, tmp_path, capsys):
    folder = tmp_path / "weights"
    assert run(folder) == 1
    said = capsys.readouterr().err
    digest = releases.NETS["bvlc_alexnet"].digest
    for part in (str(folder / "bvlc_alexnet.caffemodel"), f"SHA-1: {digest}", "HTTP 404", server[1],
                 str(folder / releases.ARCHIVE), str(folder / releases.NPY), "is enough"):  # fmt: skip
        assert part in said
    assert list(folder.iterdir()) == []


def test_another_mean_is_refused(tmp_path):
    for name, data, words in (
        ("a", archive(mean_image() + 1), r"channels \(B, G, R\) average"),
        ("b", archive(mean_image()[:, :200]), r"expected a mean image of shape \(3, 256, 256\)"),
        ("c", b"\xff\xff", "found neither"),
        ("d", archive(mean_image())[:-1000], "damaged|neither"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=words):
            releases.read_mean(tmp_path / name)


@pytest.fixture
def squeezenet(server, monkeypatch):
    """The release of SqueezeNet is SQUEEZENET, at the server; what stands in for it is SQUEEZENET twice."""
    _, address = server
    blob_id = hashlib.sha1(b"blob %d\0" % len(SQUEEZENET) + SQUEEZENET).hexdigest()
    stand_in = hashlib.sha256(2 * SQUEEZENET).hexdigest()
    release = releases.NETS["squeezenet_v1.0"]._replace(
        digest=f"git:{blob_id}",
        urls=(address + "squeezenet_v1.0.caffemodel",),
        others=((stand_in, "decoded from another file"),),
    )
    monkeypatch.setitem(releases.NETS, "squeezenet_v1.0", release)
    return blob_id


def test_squeezenet_is_known_by_its_blob_id_and_has_no_mean_image(server, squeezenet, tmp_path, capsys):
    folder = tmp_path / "weights"
    assert run(folder, net="squeezenet") == 1
    said = capsys.readouterr().err
    for part in (str(folder / "squeezenet_v1.0.caffemodel"), f"git blob id: {squeezenet}", "HTTP 404"):
        assert part in said
    (server[0] / "squeezenet_v1.0.caffemodel").write_bytes(SQUEEZENET)
    assert run(folder, net="squeezenet") == 0
    assert "downloaded (git blob id checked)" in capsys.readouterr().out.replace("\n", " ")
    assert [path.name for path in folder.iterdir()] == ["squeezenet_v1.0.caffemodel"]
    assert releases.recognize(folder / "squeezenet_v1.0.caffemodel") == ("squeezenet_v1.0", "by its git blob id")


def test_a_file_that_stands_in_for_squeezenets_release_is_taken(server, squeezenet, tmp_path, capsys):
    target = tmp_path / "squeezenet_v1.0.caffemodel"
    target.write_bytes(2 * SQUEEZENET)
    assert run(tmp_path, net="squeezenet_v1.0") == 0
    assert "decoded from another file; SHA-256 checked" in " ".join(capsys.readouterr().out.split())
    assert target.read_bytes() == 2 * SQUEEZENET
    assert releases.recognize(target) == ("squeezenet_v1.0", "decoded from another file, by its SHA-256")
    target.write_bytes(SQUEEZENET[1:])
    assert releases.recognize(target) is None


def test_a_file_is_read_once_to_recognize_it(squeezenet, tmp_path, monkeypatch):
    target = tmp_path / "squeezenet_v1.0.caffemodel"
    target.write_bytes(SQUEEZENET)
    reads = []

    def count(*words):
        reads.append(words)
        return open(*words)

    monkeypatch.setattr(files, "open", count, raising=False)
    assert releases.recognize(target) == ("squeezenet_v1.0", "by its git blob id")
    assert reads == [(target, "rb")]


def test_the_releases_are_at_their_makers():
    for name in ("bvlc_alexnet", "bvlc_reference_caffenet"):
        release = releases.NETS[name]
        assert release.urls[0] == f"http://dl.caffe.berkeleyvision.org/{name}.caffemodel"
        assert len(release.digest) == 40
    path = "SqueezeNet/master/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel"
    urls = [f"https://raw.githubusercontent.com/{owner}/{path}" for owner in ("DeepScale", "forresti")]
    assert list(releases.NETS["squeezenet_v1.0"].urls) == urls
    assert releases.NETS["squeezenet_v1.0"].digest == "git:a381d848b43d7048c3b362238ece2386c21d6ff0"


@pytest.mark.parametrize("net", net_names.FINE_TUNED)
def test_every_net_that_is_fine_tuned_has_its_release(net):
    assert releases.GOES_INTO[net] in releases.NETS
