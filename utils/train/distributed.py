"""The processes that torchrun starts, or the single one: rendezvous, gradient sums, shared values.

docs/design/0010 says why gradients are summed here rather than by DistributedDataParallel.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import PrefixStore, Store

from utils.base.device import select_device
from utils.base.errors import ConfigError, YoloError, first_line

if TYPE_CHECKING:
    from utils.train.train_options import TrainOptions

_POLL = 0.01  # seconds between two checks of the store


def fresh_store(store: Store, rank: int, world: int, patience: timedelta) -> Store:
    """Agree on a fresh key prefix, so that keys of killed processes are never used.

    torchrun keeps its store over restarts, and a backend would connect to the keys of dead processes.

    Args:
        store: reachable by all ranks; it may hold keys of processes that have ended.
        rank: of this process.
        world: number of processes.
        patience: how long to wait for the others.

    Raises:
        YoloError: not all processes have joined in time.
    """
    own = uuid.uuid4().hex
    store.set(f"join/{rank}", own)
    name = ""
    offered: list[str] = []
    until = time.monotonic() + patience.total_seconds()
    while time.monotonic() < until:
        if rank == 0:
            joined = _joined(store, world)
            if joined and joined != offered:  # the first time, and after a token of a dead process
                name, offered = uuid.uuid4().hex, joined
                store.set("offer", json.dumps([name, joined]))
        elif store.check(["offer"]):
            new, joined = json.loads(store.get("offer"))
            if joined[rank : rank + 1] == [own] and new != name:
                name = new
                store.add(f"{name}/agreed", 1)
        if name and store.add(f"{name}/agreed", 0) == world - 1:
            return PrefixStore(name, store)
        time.sleep(_POLL)
    raise YoloError(f"process {rank} of {world} waited {patience} for the others to start")


def _joined(store: Store, world: int) -> list[str]:
    """Return the tokens of all ranks, or nothing while one is missing."""
    keys = [f"join/{rank}" for rank in range(world)]
    return [store.get(key).decode() for key in keys] if store.check(keys) else []


T = TypeVar("T")
_PATIENCE = timedelta(hours=3)  # the others wait while rank 0 scans a large dataset
# Words in the errors of gloo and NCCL when a connection is lost.
_BROKEN = ("gloo", "NCCL", "Connection reset", "Connection closed", "Broken pipe", "store")
_BUCKET = 25 << 20  # bytes of gradients reduced at once


class ProcessGroup:
    """The group of a single process, and the interface of `TorchrunGroup`.

    All ranks must call the same methods in the same order.
    """

    rank, local_rank, world = 0, 0, 1

    def __init__(self) -> None:
        """Start a group of one."""
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0  # by torchrun

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files, logs and plots."""
        return self.rank == 0

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Sum numbers over the ranks."""
        return list(counts)

    def maximum(self, number: int) -> int:
        """Return the largest number of any rank, so that all know of a signal that one has received."""
        return number

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over the ranks, in place; a missing gradient counts as zero."""

    def sum_tensor(self, values: Tensor) -> Tensor:
        """Sum a small tensor over the ranks."""
        return values

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in order."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0."""
        return value

    def broadcast_buffers(self, *models: nn.Module) -> None:
        """Broadcast the buffers of rank 0's models, such as running means."""

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0 first, so that the others find its files."""
        yield

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the group."""


class TorchrunGroup(ProcessGroup):
    """The processes that torchrun has started, on one or more machines."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.local_rank = int(os.environ["LOCAL_RANK"])
        backend = "nccl" if device.type == "cuda" and distributed.is_nccl_available() else "gloo"
        store, self.rank, self.world = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        distributed.init_process_group(
            backend,
            store=fresh_store(store, self.rank, self.world, _PATIENCE),
            rank=self.rank,
            world_size=self.world,
            timeout=_PATIENCE,
        )
        if self.is_main:
            self.restarted = store.add("starts", 1) > 1
        # Counts and signals stay in CPU memory: sent over NCCL, each would make the GPU wait.
        cpu = distributed.new_group(backend="gloo", timeout=_PATIENCE) if backend == "nccl" else None
        self._cpu = cpu if isinstance(cpu, distributed.ProcessGroup) else None

    def sum_counts(self, counts: Sequence[int]) -> list[int]:
        """Sum numbers over the ranks."""
        values = torch.tensor(list(counts), dtype=torch.int64)
        distributed.all_reduce(values, group=self._cpu)
        return values.tolist()

    def maximum(self, number: int) -> int:
        """Return the largest number of any rank."""
        value = torch.tensor(number)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._cpu)
        return int(value)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients in buckets, the last layers first."""
        trained = [p for p in parameters if p.requires_grad]
        for p in trained:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        # Last layers first: backward finishes their gradients first.
        pending = []
        for gradients in _buckets([p.grad for p in reversed(trained) if p.grad is not None]):
            flat = torch.cat([g.reshape(-1) for g in gradients])
            pending.append((gradients, flat, distributed.all_reduce(flat, async_op=True)))
        for gradients, flat, work in pending:
            work.wait()
            for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(summed.view(gradient.shape))

    def sum_tensor(self, values: Tensor) -> Tensor:
        """Sum a small tensor over the ranks."""
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in order."""
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value, group=self._cpu)
        return values

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0."""
        content = [value]
        distributed.broadcast_object_list(content, src=0, group=self._cpu)
        return content[0]

    def broadcast_buffers(self, *models: nn.Module) -> None:
        """Broadcast the buffers of rank 0's models."""
        for model in models:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block on rank 0 first."""
        if not self.is_main:
            distributed.barrier(group=self._cpu)
        yield
        if self.is_main:
            distributed.barrier(group=self._cpu)

    def __exit__(self, *raised: object) -> None:
        """Destroy the process group; report the loss of another rank as a one-line error."""
        error = raised[1]
        if error is None:
            distributed.destroy_process_group()
        elif isinstance(error, RuntimeError) and any(word in str(error) for word in _BROKEN):
            reason = first_line(error)
            raise YoloError(f"another process has ended or cannot be reached ({reason})") from error


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors of the same dtype into buckets of up to `_BUCKET` bytes."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.nbytes > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def is_launched() -> bool:
    """Return whether torchrun has started this process along with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def make_process_group(options: TrainOptions) -> ProcessGroup:
    """Join the processes that torchrun has started, or make the group of a single process.

    Raises:
        ConfigError: the batch size is not a multiple of the processes, or the device does not exist.
    """
    if not is_launched():
        return ProcessGroup()
    world = int(os.environ["WORLD_SIZE"])
    if options.batch_size % world and not options.resume:
        raise ConfigError(
            f"--batch-size {options.batch_size}: expected a multiple of {world}, the number of processes "
            "that share each batch"
        )
    return TorchrunGroup(select_device(options.device, verbose=False, keep_memory=False))
