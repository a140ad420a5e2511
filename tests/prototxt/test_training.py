"""The nets train: a few solver iterations on a handful of images, through data layer, losses and snapshots."""

import json

import caffe
import lmdb
import net
import numpy as np
import pytest
from caffe.proto import caffe_pb2


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Two classes, bright above or bright below, in place of the LMDBs of fashion_mnist; batches of 8."""
    env = lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 24)
    random = np.random.RandomState(0)
    with env.begin(write=True) as txn:
        for index in range(32):
            image = random.randint(60, size=(1, 28, 28)).astype(np.uint8)
            image[:, (index % 2) * 14 : (index % 2) * 14 + 14] += 180
            datum = caffe_pb2.Datum(channels=1, height=28, width=28, data=image.tobytes(), label=index % 2)
            datum.float_data.extend([1 - index % 2, index % 2])
            txn.put(f"{index:08d}_x".encode(), datum.SerializeToString())
    env.close()
    spec = net.DATASETS["fashion_mnist"]
    source = {"source": str(tmp_path / "lmdb"), "batch_size": 8}
    monkeypatch.setitem(net.DATASETS, "fashion_mnist", spec._replace(train=source, test=source))
    return tmp_path / "run"


@pytest.mark.parametrize("variant", ["dhn", "dhn_q", "dhn_e"])
def test_a_few_iterations_lower_the_loss_and_leave_a_snapshot(tiny, variant):
    net.write("fashion_mnist", variant, 12, str(tiny))
    solver = caffe.get_solver(str(tiny / "solver.prototxt"))
    loss = "squared_similarity_loss" if variant == "dhn_e" else "pairwise_loss"
    losses = []
    for _ in range(40):
        solver.step(1)
        losses.append(solver.net.blobs[loss].data.item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    solver.test_nets[0].share_with(solver.net)
    assert solver.test_nets[0].forward()[loss].item() > 0
    solver.snapshot()
    deploy = caffe.Net(str(tiny / "deploy.prototxt"), str(tiny / f"{variant}_iter_40.caffemodel"), caffe.TEST)
    np.testing.assert_array_equal(deploy.params["hash_layer"][0].data, solver.net.params["hash_layer"][0].data)


def test_param_str_of_the_data_layers_is_json(tiny):
    net.write("fashion_mnist", "dhn", 12, str(tiny))
    lines = [line.strip() for line in (tiny / "train_val.prototxt").read_text().splitlines()]
    written = [line[len("param_str: '") : -1] for line in lines if line.startswith("param_str: '")]
    assert [json.loads(settings)["batch_size"] for settings in written] == [8, 8]
