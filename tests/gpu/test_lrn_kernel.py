"""LRN on a GPU: the kernel's source run on a CPU, thread by thread, and what takes its place without a compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import caffe
import numpy as np
import pytest
import torch
from caffe import device, layer
from caffe.blob import Blob
from caffe.cuda import kernels
from caffe.proto import caffe_pb2, text

SHIM = """
#include <math.h>
#define __global__
#define __device__
static struct { int x; } blockIdx, blockDim, threadIdx;
static float rsqrtf(float value) { return 1.0f / sqrtf(value); }
"""
RUN = """
void run(int blocks, int threads, %s)
{
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x)
            %s;
}
"""
POINTERS = {"lrn": "float* a, const float* b", "lrn_gradient": "float* a, const float* b, const float* c"}


@pytest.fixture
def compiled(tmp_path, monkeypatch) -> list[str]:
    """torch.cuda._compile_kernel by a C compiler, for kernels that run on the CPU; the names of those that ran."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    launched = []

    def compile_kernel(source: str, name: str):
        names = ", ".join("abc"[: POINTERS[name].count("*")])
        call = RUN % (POINTERS[name] + ", int d, int e, int f", f"{name}({names}, d, e, f)")
        path = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}.c"
        path.write_text(SHIM + source.replace('extern "C"', "") + call)
        library = path.with_suffix(".so")
        command = ["gcc", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", str(path), "-o", str(library), "-lm"]
        subprocess.run(command, check=True)
        run = ctypes.CDLL(str(library)).run

        def kernel(grid, block, args):
            launched.append(name)
            run(grid[0], block[0], *(
                ctypes.c_void_p(each.data_ptr()) if isinstance(each, torch.Tensor) else ctypes.c_int(each)
                for each in args))  # fmt: skip

        return kernel

    monkeypatch.setattr(torch.cuda, "_compile_kernel", compile_kernel, raising=False)
    kernels._compiled.cache_clear()
    yield launched
    kernels._compiled.cache_clear()


@pytest.fixture
def not_compiled(monkeypatch):
    def compile_kernel(source, name):
        raise OSError("libnvrtc.so.12: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "_compile_kernel", compile_kernel, raising=False)
    kernels._compiled.cache_clear()
    kernels._report.cache_clear()
    yield
    kernels._compiled.cache_clear()


def results(shape: tuple[int, ...], fields: str) -> tuple[np.ndarray, np.ndarray]:
    """(top, bottom's diff) of an LRN layer where nets compute now."""
    random = np.random.RandomState(0)
    bottom, top = Blob(shape), Blob()
    lrn = layer.create(text.parse(f'name: "n" type: "LRN" lrn_param {{ {fields} }}', caffe_pb2.LayerParameter()))
    bottom.set_data(torch.tensor(3 * random.standard_normal(shape), dtype=torch.float32).to(device.current()))
    lrn.setup([bottom], [top])
    lrn.reshape([bottom], [top])
    lrn.propagate_down = [True]
    lrn.forward([bottom], [top])
    top.set_diff(torch.tensor(random.standard_normal(shape), dtype=torch.float32).to(device.current()))
    lrn.backward([top], [True], [bottom])
    return top.data.copy(), bottom.diff.copy()


FIELDS = {
    "alexnet": ((2, 12, 5, 4), "local_size: 5 alpha: 0.0001 beta: 0.75"),
    "large alpha": ((2, 12, 5, 4), "local_size: 5 alpha: 2 beta: 0.75"),
    "another power": ((2, 7, 3, 3), "local_size: 3 alpha: 1 beta: 0.6 k: 2"),
    "wider than the channels": ((1, 3, 17, 19), "local_size: 9 alpha: 1 beta: 0.75"),
    "a channel alone": ((2, 4, 2, 2), "local_size: 1 alpha: 1 beta: 0.75"),
}


def check(case: str) -> None:
    """GPU mode's results against CPU mode's."""
    found = results(*FIELDS[case])
    caffe.set_mode_cpu()
    for ours, expected in zip(found, results(*FIELDS[case]), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("case", FIELDS)
def test_the_kernel(simulated_gpu, compiled, case):
    check(case)
    assert compiled == ["lrn", "lrn_gradient"]


@pytest.mark.parametrize("case", FIELDS)
def test_what_takes_its_place(simulated_gpu, not_compiled, case, logged):
    check(case)
    check(case)
    lines = [record.getMessage() for record in logged if "CUDA kernel" in record.getMessage()]
    assert len(lines) == 1 and lines[0].endswith("more slowly: OSError: libnvrtc.so.12: cannot open shared object file")


def test_a_torch_without_the_function_takes_it_too(simulated_gpu, monkeypatch):
    monkeypatch.delattr(torch.cuda, "_compile_kernel", raising=False)
    kernels._compiled.cache_clear()
    check("alexnet")
    kernels._compiled.cache_clear()


def test_without_the_kernel_an_iteration_is_a_few_operations(simulated_gpu, not_compiled):
    simulated_gpu.record_operations = True
    results(*FIELDS["alexnet"])
    assert simulated_gpu.operations["add_"] <= 3, "one pass for the sums, not one a channel of the window"
    assert simulated_gpu.operations["avg_pool2d"] == 3


def test_windows_that_are_too_wide_are_left_to_torch(simulated_gpu, compiled):
    tensors = torch.ones(1, 40, 2, 2, device="cuda"), torch.ones(1, 40, 2, 2, device="cuda")
    assert not kernels.lrn("lrn", tensors, 17, 1.0, 1.0, 0.75) and compiled == []
