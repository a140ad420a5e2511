"""What is compiled from kernels.c gives what torch gives; and where it cannot be built or loaded, torch computes."""

import runpy
import shutil
from pathlib import Path

import caffe
import numpy as np
import pytest
import torch
from caffe.cpu import kernels, library_file
from caffe.layer_types import normalization, pooling
from caffe.proto import caffe_pb2, text

REPOSITORY = Path(__file__).parents[3]
COMPILED = pytest.mark.skipif(kernels.LIBRARY is None and shutil.which("cc") is None, reason="no C compiler: cc")


class Asked:
    """What an operation reads of its layer."""

    def new_output(self, like, shape):
        return like.new_full(shape, torch.nan)  # every value must be written


def both(monkeypatch, operation, x: torch.Tensor, dy_seed: int = 1):
    """((tops, bottom diff) by the kernels, the same by torch) of operation(x)."""
    results = []
    for library in (kernels.LIBRARY, None):
        monkeypatch.setattr(kernels, "LIBRARY", library)
        leaf = x.clone().requires_grad_()
        tops = operation(leaf)
        tops = tops if isinstance(tops, tuple) else (tops,)
        dy = torch.randn(tops[0].shape, generator=torch.Generator().manual_seed(dy_seed))
        results.append((*(top.detach() for top in tops), *torch.autograd.grad(tops[0], leaf, dy)))
    return results


def test_the_library_is_there():
    """`make` builds it wherever there is a compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: cc")
    assert kernels.LIBRARY is not None, f"{library_file.library_file()} is missing: make"


@COMPILED
@pytest.mark.parametrize("shape, size", [
    ((2, 1, 3, 3), 5), ((3, 7, 5, 6), 3), ((2, 7, 5, 6), 15), ((2, 20, 31, 33), 5), ((1, 300, 17, 9), 5),
    ((2, 4096, 1, 3), 1),
])  # fmt: skip
def test_lrn(shape, size, monkeypatch):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    constants = size, 0.7, 0.75, 2.0  # alpha, beta, k
    found, expected = both(monkeypatch, lambda x: normalization._AcrossChannels.apply(x, Asked(), *constants), x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6)


WINDOWS = [  # kernel, stride, pad, ceil
    ((3, 3), (2, 2), (0, 0), True),
    ((3, 3), (1, 1), (1, 1), False),
    ((2, 4), (3, 2), (1, 2), True),
    ((1, 1), (1, 1), (0, 0), False),
    ((11, 9), (1, 1), (0, 0), False),
    ((5, 5), (4, 3), (2, 2), False),
]


@COMPILED
@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("values", ["drawn", "many equal", "one greatest", "infinite"])
def test_max_pooling(window, values, monkeypatch):
    (kernel, stride, pad, ceil), random = window, np.random.RandomState(0)
    x = torch.from_numpy(random.standard_normal((3, 5, 11, 9)).astype(np.float32))
    if values == "many equal":
        x = x.round()
    elif values == "one greatest":
        x = torch.full_like(x, -3.4e38)
    elif values == "infinite":
        x[x > 0.5], x[x < -0.2] = torch.inf, -torch.inf
    pooled = torch.nn.functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil).shape[2:]
    found, expected = both(
        monkeypatch, lambda x: pooling._MaxPool.apply(x, Asked(), pooled, kernel, stride, pad, ceil), x
    )
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[2], expected[2], rtol=0, atol=1e-6)


@COMPILED
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_max_pooling_without_indices(window, monkeypatch):
    (kernel, stride, pad, ceil), random = window, np.random.RandomState(0)
    x = torch.from_numpy(random.standard_normal((3, 5, 21, 19)).astype(np.float32))
    x[x > 2], x[x < -0.9], x[1, 2, 3, 4], x[2, 1, 20, 18] = torch.inf, -torch.inf, torch.nan, torch.nan
    expected = torch.nn.functional.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil)
    sides = ("kernel", kernel), ("stride", stride), ("pad", pad)
    sizes = "".join(f"{name}_h: {height} {name}_w: {width} " for name, (height, width) in sides)
    param = text.parse(
        f"""layer {{ type: "Input" top: "x" input_param {{ shape {{ dim: 3 dim: 5 dim: 21 dim: 19 }} }} }}
        layer {{ name: "pool" type: "Pooling" bottom: "x" top: "y"
          pooling_param {{ pool: MAX {sizes} round_mode: {"CEIL" if ceil else "FLOOR"} }} }}""",
        caffe_pb2.NetParameter(),
    )
    net, names = caffe.Net(param, caffe.TEST), []
    net.blobs["x"].data[...] = x.numpy()
    run = kernels.run
    monkeypatch.setattr(kernels, "run", lambda name, *arguments: (names.append(name), run(name, *arguments)))
    net.forward()
    assert names == ["max_pool_values"] and net.layers[1].plain
    assert np.array_equal(net.blobs["y"].data, expected.numpy(), equal_nan=True)


@COMPILED
def test_a_window_with_a_nan_gives_nan(monkeypatch):
    x = torch.randn(2, 3, 8, 8)
    x[0, 1, 3, 4] = x[1, 2, 0, 0] = torch.nan
    window = (4, 4), (3, 3), (2, 2), (1, 1), False
    found, expected = both(monkeypatch, lambda x: pooling._MaxPool.apply(x, Asked(), *window), x)
    assert torch.equal(found[0].isnan(), expected[0].isnan()) and found[0].isnan().sum() == 3
    assert torch.equal(found[1], expected[1])


@COMPILED
def test_what_the_kernels_are_not_for():
    x = torch.zeros(2, 3, 4, 4)
    assert kernels.usable(x)
    for other in (x.double(), x.bfloat16(), x.transpose(2, 3), x[:0], x.to("meta")):
        assert not kernels.usable(x, other)


def test_a_library_of_another_source_is_not_loaded(tmp_path):
    source = tmp_path / "kernels.c"
    source.write_text("one")
    first = library_file.library_file(source)
    source.write_text("another")
    assert first.parent == tmp_path and library_file.library_file(source) != first
    assert kernels.load(first) is None
    first.write_bytes(b"not a library")
    assert kernels.load(first) is None


@pytest.fixture
def hook():
    compiled = runpy.run_path(str(REPOSITORY / "hatch_build.py"))["compiled"]
    return lambda source, warn: compiled(source, warn, [], "nets train more slowly")


def test_without_a_compiler_a_line_says_so(hook, tmp_path, monkeypatch):
    source, said = tmp_path / "kernels.c", []
    source.write_text("int f(void) { return 1; }")
    monkeypatch.setenv("CC", "no-such-compiler -m64")
    assert hook(source, said.append) is None
    assert "kernels.c was not compiled by 'no-such-compiler'" in said[0] and "more slowly" in said[0]
    assert {path.name for path in tmp_path.iterdir()} >= {"kernels.c"} and not list(tmp_path.glob("*.so"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler: cc")
def test_a_build_replaces_an_older_one(hook, tmp_path, monkeypatch):
    source, said = tmp_path / "kernels.c", []
    monkeypatch.delenv("CC", raising=False)
    source.write_text("int f(void) { return 1; }")
    first = hook(source, said.append)
    source.write_text("int f(void) { return 2; }")
    second = hook(source, said.append)
    assert said == [] and list(tmp_path.glob("*.so")) == [second] and first != second
    source.write_text("this is no C")
    assert hook(source, said.append) is None
    assert "error" in said[0] and list(tmp_path.glob("*.so")) == [second] and not list(tmp_path.glob("*.partial"))
