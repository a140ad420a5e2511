"""Where nets compute (CPU or one CUDA device, chosen as in pycaffe) and the random numbers they draw."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

import numpy as np
import torch

from caffe import glog, parallel

_mode = "cpu"
_device_id = 0
_tf32 = False
_seed: int | None = None
_generators: dict[str, torch.Generator] = {}
_copy_streams: dict[torch.device, torch.cuda.Stream] = {}


def set_mode_cpu() -> None:
    """Compute on the CPU from now on. Nets keep the device they were made on until their next use."""
    global _mode
    _mode = "cpu"


def set_mode_gpu() -> None:
    """Compute on the CUDA device of `set_device`; without one a warning says so and the CPU computes."""
    global _mode
    if not torch.cuda.is_available():
        glog.warning(
            "common.cpp:66",
            f"Cannot use GPU mode: torch {torch.__version__} finds no CUDA device; computing on the CPU.",
        )
        return
    _mode = "cuda"
    activate()
    allow_tf32(_tf32)


def set_device(device_id: int) -> None:
    """Choose the CUDA device that GPU mode computes on.

    Raises:
        ValueError: there are CUDA devices, and none has this number.
    """
    global _device_id
    count = torch.cuda.device_count()
    if count and not 0 <= device_id < count:
        raise ValueError(f"set_device: expected a CUDA device from 0 to {count - 1}, found {device_id}")
    _device_id = device_id
    if _mode == "cuda":
        activate()


def activate() -> None:
    """In GPU mode make the chosen device this thread's current one: where "cuda" is for a user's Python layer, and
    whose context pinned memory belongs to. CUDA keeps the current device a thread."""
    if _mode == "cuda":
        torch.cuda.set_device(_device_id)


def allow_tf32(allowed: bool) -> None:
    """Let CUDA round the factors of products to TF32, or not: torch's own default lets it in convolutions."""
    global _tf32
    _tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
    for products in ("conv", "rnn") if not allowed else ():
        if hasattr(torch.backends.cudnn, products):  # from torch 2.9 on: else torch.backends.fp32_precision decides
            getattr(torch.backends.cudnn, products).fp32_precision = "ieee"


def set_deterministic(deterministic: bool) -> None:
    """Compute to the bit alike each time, on a GPU too, or as fast as may be (default). Call it before nets compute.

    On a GPU convolutions, max pooling and sums of scattered values then take other ways, some slower. An operation of
    torch that has none raises RuntimeError, which names it. On a CPU nets are deterministic in any case.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    if deterministic != torch.are_deterministic_algorithms_enabled():  # the switch itself imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    # buffers are written before they are read
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # mypy sees no property
    torch.backends.cudnn.deterministic = deterministic


def deterministic() -> bool:
    """Whether `set_deterministic` asked for results that are alike each time."""
    return torch.are_deterministic_algorithms_enabled()


def current() -> torch.device:
    """The device that nets compute on now."""
    return torch.device("cuda", _device_id) if _mode == "cuda" else torch.device("cpu")


def copy_stream(where: torch.device) -> torch.cuda.Stream:
    """The stream of CUDA device `where` in which batches are copied to it, beside what its nets compute."""
    if where not in _copy_streams:
        _copy_streams[where] = torch.cuda.Stream(where)
    return _copy_streams[where]


def set_random_seed(seed: int) -> None:
    """Seed the fillers, dropout and the data layers' shuffles, crops and mirrors."""
    global _seed
    _seed = int(seed)
    _generators.clear()


def generator(device: torch.device | None = None) -> torch.Generator:
    """The generator of random tensors on `device` (default: the CPU's)."""
    device = device or torch.device("cpu")
    key = str(device)
    if key not in _generators:
        made = torch.Generator(device)
        if _seed is None:
            made.seed()
        else:
            made.manual_seed(_seed)
        _generators[key] = made
    return _generators[key]


def random_seed() -> int:
    """A seed for a random stream of its own (a data layer's), drawn from the CPU's generator."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator()).item())


def generator_states() -> dict[str, bytes]:
    """The states of the generators that nets draw from here: of `cpu` and, where nets compute there, of `cuda`."""
    places = {where.type: where for where in (torch.device("cpu"), current())}
    return {kind: generator(where).get_state().numpy().tobytes() for kind, where in places.items()}


def set_generator_states(states: Mapping[str, bytes]) -> None:
    """Draw on from the `generator_states` of the root solver; the solvers beside it keep generators of their own.

    Raises:
        ValueError: another version of torch made them, whose generators hold something else.
    """
    for where in {current(), torch.device("cpu")} if parallel.restores_random_numbers() else ():
        if where.type in states:
            try:
                generator(where).set_state(torch.frombuffer(bytearray(states[where.type]), dtype=torch.uint8))
            except RuntimeError as error:
                raise ValueError(f"torch {torch.__version__} refuses the generator's state: {error}") from None


def stream_state(random: np.random.RandomState) -> bytes:
    """Where a random stream stands: its 624 words and the place in them, 4 bytes each, little-endian."""
    _, words, place, *_ = random.get_state()
    return np.append(words, place).astype("<u4").tobytes()


def restored_stream(random: np.random.RandomState, state: bytes) -> np.random.RandomState:
    """A stream that draws on from a `stream_state` of the root solver; of the solvers beside it, `random` itself.

    `random` is not touched: in a forked child its lock may be held by a thread that stayed with the parent.

    Raises:
        ValueError: it is none.
    """
    words = np.frombuffer(state, "<u4")
    if words.size != 625:
        raise ValueError(f"expected a random stream's state of 2500 bytes, found {len(state)}")
    if not parallel.restores_random_numbers():
        return random
    restored = np.random.RandomState(0)
    restored.set_state(("MT19937", words[:624], int(words[624]), 0, 0.0))
    return restored


def _stop_glibc_returning_memory() -> None:
    """Ask glibc to keep freed memory for the next allocation instead of returning it to the system.

    A net allocates and frees the same large buffers at each iteration. Returned each time, their pages are mapped and
    zeroed anew by the system, which takes longer than many a layer does: LRN on 256x32x14x14 falls from 22 to 5 ms.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold = -1, -3
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


_stop_glibc_returning_memory()


def _after_fork() -> None:
    """Compute with one thread in a forked child: GNU OpenMP would wait for ever for threads that stayed behind."""
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
