"""The processes of one training: how they find each other, what they tell each other, how they end.

They meet at a store, torch.distributed's key-value server: `new_uid` starts one on this machine, and a uid is its
address; torchrun has its own. Arrays travel by gloo, and between GPUs by NCCL.

A process that fails claims the failure in the store before its connections close. The others lose their connection to
it and look there: the first one to claim prints its sentence, all others end in silence.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist

from caffe import device

_FIND = timedelta(seconds=45)  # until the first process of a training answers where it was said to be
_SILENCE = 45  # seconds without a sign of life after which a process that has not joined is taken to be gone
_SIGN = 5  # seconds between the signs of life that `sign_of_life` gives
_EXCHANGE = timedelta(days=1)  # the others wait while the root tests; a process that is gone closes its connections
_DEVICE = timedelta(minutes=10)  # of an exchange between GPUs, which begins when all have computed
_CLAIM = 3  # seconds that whoever lost a connection leaves to the process that knows why
_PART = 30  # seconds until a process that has ended closes its connections, whatever the others do
_servers: list[dist.TCPStore] = []  # what `new_uid` started; they end with this process


class LostError(ConnectionError):
    """Another process of the training is gone, or does not come."""


def new_uid() -> bytes:
    """The address of a new store, which runs in this process and which processes on this machine alone can reach.

    Raises:
        NotImplementedError: this torch has no torch.distributed.
    """
    _check_available()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(1024)
    host, port = listening.getsockname()
    _servers.append(
        dist.TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
    )
    return f"{host}:{port}".encode()


def _check_available() -> None:
    if not dist.is_available():
        raise NotImplementedError(
            f"several solvers need torch.distributed, which torch {torch.__version__} here was built without"
        )


def open_store(uid: bytes | str | None) -> dist.PrefixStore:
    """The store at a uid; None: torchrun's.

    Raises:
        ValueError: it is no uid.
        LostError: nobody answers there.
        NotImplementedError: this torch has no torch.distributed.
    """
    _check_available()
    try:
        if uid is None:
            store = next(iter(dist.rendezvous("env://", timeout=_FIND)))[0]
        else:
            text = os.fsdecode(uid)
            host, colon, port = text.rpartition(":")
            if not colon or not port.isdecimal():
                raise ValueError(f"NCCL: expected a uid that caffe.NCCL.new_uid() gave, found {text!r}")
            socket.create_connection((host, int(port))).close()  # TCPStore would try again for a minute
            store = dist.TCPStore(host, int(port), is_master=False, wait_for_workers=False, timeout=_FIND)
    except (RuntimeError, OSError) as error:
        raise LostError(f"NCCL: the training's first process cannot be reached: {_first_line(error)}") from None
    return dist.PrefixStore("caffe", store)


@contextlib.contextmanager
def sign_of_life(store: dist.PrefixStore, rank: int) -> Iterator[None]:
    """While entered, a thread tells the others again and again that this process lives: they wait for it to join,
    however long it loads its data."""
    over = threading.Event()

    def tell() -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone with its process
            store.add(f"signs/{rank}", 1)
            while not over.wait(_SIGN):
                store.add(f"signs/{rank}", 1)

    thread = threading.Thread(target=tell, name="caffe-sign-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_SIGN)


def claim(store: dist.PrefixStore, rank: int, sentence: str, wait: bool = False) -> bool:
    """Whether this process is the one that says why the training failed: the first one to claim it.

    wait: another process may know better, and gets a few seconds to say so.
    """
    text = f"{rank} {sentence}"
    try:
        until = time.monotonic() + (_CLAIM if wait else 0)
        while time.monotonic() < until:
            if store.check(["failure"]):
                return False
            time.sleep(0.05)
        return store.compare_set("failure", "", text) == text.encode()
    except RuntimeError:
        return True  # the store is gone with its process: each says it


def _first_line(error: BaseException) -> str:
    """What an error of torch.distributed says, without the C++ source before it and the advice and stack behind it."""
    line = re.sub(r"^\[\S+\.(cc|cpp):\d+\]:? *", "", str(error).strip().splitlines()[0])
    return line.partition(". This is typically")[0]


class Group:
    """This process among the `count` of a training, once all are there.

    Raises:
        LostError: one did not come in time.
    """

    def __init__(self, store: dist.PrefixStore, rank: int, count: int):
        self.store, self.rank, self.count = store, rank, count
        if dist.is_initialized():
            raise ValueError(
                "NCCL: expected a process without torch.distributed, found its process group initialized; end() an "
                "earlier caffe.NCCL of this process first, or leave out a script's own"
            )
        self._wait_for_all()
        with self._exchange(), _interface(store):
            inner = dist.PrefixStore("gloo", store)
            dist.init_process_group("gloo", store=inner, rank=rank, world_size=count, timeout=_EXCHANGE)
            on_gpus = device.current().type == "cuda" and dist.is_nccl_available()
            self._devices = dist.new_group(backend="nccl", timeout=_DEVICE) if on_gpus else None

    def _wait_for_all(self) -> None:
        with self._exchange():
            self.store.set(f"joined/{self.rank}", "")
            signs: dict[int, int] = {}  # of life, of each process that has not joined
            last = dict.fromkeys(range(self.count), time.monotonic())  # when the number of them grew
            while missing := [rank for rank in last if not self.store.check([f"joined/{rank}"])]:
                if self.store.check(["failure"]):
                    raise LostError(f"solver {self.rank} of {self.count}: another one failed before it had joined")
                for rank in missing:
                    number = self.store.add(f"signs/{rank}", 0)
                    if number != signs.get(rank, 0):
                        signs[rank], last[rank] = number, time.monotonic()
                gone = [str(rank) for rank in missing if time.monotonic() - last[rank] > _SILENCE]
                if gone:
                    raise LostError(
                        f"solver {self.rank} of {self.count} waited {_SILENCE} s for a sign of solver "
                        f"{', '.join(gone)}, which ended or never began: start {self.count} processes, each with a "
                        "rank of its own"
                    )
                time.sleep(0.02)

    @contextlib.contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise LostError(
                f"solver {self.rank} of {self.count} lost another one, whose process ended or cannot be reached "
                f"({_first_line(error)}); the newest snapshot is complete: resume from it"
            ) from None

    def broadcast(self, tensor: torch.Tensor) -> None:
        """Give `tensor` the root's values, in place."""
        with self._exchange():
            dist.broadcast(tensor, 0, group=self._of(tensor))

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """Give `tensor` the sum over all processes, in place."""
        with self._exchange():
            dist.all_reduce(tensor, group=self._of(tensor))

    def _of(self, tensor: torch.Tensor) -> dist.ProcessGroup | None:
        return self._devices if tensor.device.type == "cuda" else None

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of all processes, of one shape, on the host, by rank."""
        gathered = [torch.empty_like(tensor) for _ in range(self.count)]
        with self._exchange():
            dist.all_gather(gathered, tensor)
        return gathered

    def gather_numbers(self, numbers: Sequence[int]) -> list[tuple[int, ...]]:
        """The numbers of all processes, as many each, by rank."""
        return [tuple(row.tolist()) for row in self.all_gather(torch.tensor(numbers, dtype=torch.int64))]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, by rank."""
        sizes = [size for (size,) in self.gather_numbers([len(data)])]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else padded[:0]
        rows = self.all_gather(padded)
        return [row[:size].numpy().tobytes() for row, size in zip(rows, sizes, strict=True)]

    def part(self) -> None:
        """Wait until each process has what the last exchange gave it: gloo drops what a closed connection has sent.

        All call it after the same exchange. One that fails meanwhile is not waited for longer than a failure takes.
        """
        with contextlib.suppress(RuntimeError):
            self.store.set(f"parted/{self.rank}", "")
            until = time.monotonic() + _PART
            while time.monotonic() < until and not self.store.check([f"parted/{rank}" for rank in range(self.count)]):
                time.sleep(0.01)

    def destroy(self) -> None:
        """Close the connections."""
        if dist.is_initialized():
            dist.destroy_process_group()


@contextlib.contextmanager
def _interface(store: dist.PrefixStore) -> Iterator[None]:
    """While entered, gloo meets on the loopback interface where the store does: there is one machine."""
    inner = store.underlying_store
    local = isinstance(inner, dist.TCPStore) and inner.host == "127.0.0.1"
    name = "GLOO_SOCKET_IFNAME"
    if not local or name in os.environ or "lo" not in {interface for _, interface in socket.if_nameindex()}:
        yield
        return
    os.environ[name] = "lo"
    try:
        yield
    finally:
        del os.environ[name]
