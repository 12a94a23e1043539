"""The process group that torchrun starts: rendezvous, gradient sums, shared values; or the single process."""

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

_PAUSE = 0.01  # seconds between two looks


def meet(store: Store, rank: int, world: int, patience: timedelta) -> Store:
    """Agree on a part of the store that belongs to this start of the processes alone.

    Args:
        store: one that all reach, perhaps with keys of processes that are gone.
        rank: of this process.
        world: how many meet.
        patience: how long to wait for the others.

    Raises:
        YoloError: not all have come in time.
    """
    own = uuid.uuid4().hex
    store.set(f"join/{rank}", own)
    name = ""
    offered: list[str] = []
    until = time.monotonic() + patience.total_seconds()
    while time.monotonic() < until:
        if rank == 0:
            joined = _joined(store, world)
            if joined and joined != offered:  # at first, and when one of them has proved to be a dead one's
                name, offered = uuid.uuid4().hex, joined
                store.set("offer", json.dumps([name, joined]))
        elif store.check(["offer"]):
            new, joined = json.loads(store.get("offer"))
            if joined[rank : rank + 1] == [own] and new != name:
                name = new
                store.add(f"{name}/agreed", 1)
        if name and store.add(f"{name}/agreed", 0) == world - 1:
            return PrefixStore(name, store)
        time.sleep(_PAUSE)
    raise YoloError(f"process {rank} of {world} has waited {patience} for the others to start")


def _joined(store: Store, world: int) -> list[str]:
    """The tokens of all ranks, or nothing as long as one is missing."""
    keys = [f"join/{rank}" for rank in range(world)]
    return [store.get(key).decode() for key in keys] if store.check(keys) else []


T = TypeVar("T")
_PATIENCE = timedelta(hours=3)  # rank 0 may scan a large set, while the others wait
# Words in the errors of gloo and NCCL when a connection is gone.
_BROKEN = ("gloo", "NCCL", "Connection reset", "Connection closed", "Broken pipe", "store")
_BUCKET = 25 << 20  # bytes of gradients that travel together


class ProcessGroup:
    """One process; the base of several. All processes call the same methods in the same order."""

    rank, local_rank, world = 0, 0, 1

    def __init__(self) -> None:
        """Stand alone."""
        self.restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0  # as rank 0 knows

    @property
    def leads(self) -> bool:
        """Whether this process writes, prints and draws."""
        return self.rank == 0

    def sums(self, counts: Sequence[int]) -> list[int]:
        """Add up numbers over the processes."""
        return list(counts)

    def any(self, number: int) -> int:
        """The greatest number of any process: a signal that one has received is known to all."""
        return number

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients over the processes, in place; where one has none, it counts as zero."""

    def sum_tensor(self, values: Tensor) -> Tensor:
        """Add up a small tensor over the processes."""
        return values

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank."""
        return [value]

    def share(self, value: T) -> T:
        """What rank 0 has."""
        return value

    def align(self, *models: nn.Module) -> None:
        """Copy all tensors of rank 0's models that are not trained, such as running means."""

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Rank 0 runs the block first, so that the others find its files."""
        yield

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the others."""


class TorchrunGroup(ProcessGroup):
    """Several processes, on one machine or more."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.local_rank = int(os.environ["LOCAL_RANK"])
        backend = "nccl" if device.type == "cuda" and distributed.is_nccl_available() else "gloo"
        store, self.rank, self.world = next(distributed.rendezvous("env://", timeout=_PATIENCE))
        distributed.init_process_group(
            backend,
            store=meet(store, self.rank, self.world, _PATIENCE),
            rank=self.rank,
            world_size=self.world,
            timeout=_PATIENCE,
        )
        if self.leads:
            self.restarted = store.add("starts", 1) > 1
        # Counts and signals are in CPU memory: over NCCL each would make the GPU wait.
        words = distributed.new_group(backend="gloo", timeout=_PATIENCE) if backend == "nccl" else None
        self._words = words if isinstance(words, distributed.ProcessGroup) else None

    def sums(self, counts: Sequence[int]) -> list[int]:
        """See `ProcessGroup.sums`."""
        values = torch.tensor(list(counts), dtype=torch.int64)
        distributed.all_reduce(values, group=self._words)
        return values.tolist()

    def any(self, number: int) -> int:
        """See `ProcessGroup.any`."""
        value = torch.tensor(number)
        distributed.all_reduce(value, distributed.ReduceOp.MAX, group=self._words)
        return int(value)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See `ProcessGroup.sum_gradients`."""
        trained = [p for p in parameters if p.requires_grad]
        for p in trained:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        # Last layers first: their gradients were finished first.
        under_way = []
        for gradients in _buckets([p.grad for p in reversed(trained) if p.grad is not None]):
            flat = torch.cat([g.reshape(-1) for g in gradients])
            under_way.append((gradients, flat, distributed.all_reduce(flat, async_op=True)))
        for gradients, flat, work in under_way:
            work.wait()
            for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(summed.view(gradient.shape))

    def sum_tensor(self, values: Tensor) -> Tensor:
        """See `ProcessGroup.sum_tensor`."""
        summed = values.clone()
        distributed.all_reduce(summed)
        return summed

    def gather(self, value: T) -> list[T]:
        """See `ProcessGroup.gather`."""
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value, group=self._words)
        return found

    def share(self, value: T) -> T:
        """See `ProcessGroup.share`."""
        content = [value]
        distributed.broadcast_object_list(content, src=0, group=self._words)
        return content[0]

    def align(self, *models: nn.Module) -> None:
        """See `ProcessGroup.align`."""
        for model in models:
            for buffer in model.buffers():
                distributed.broadcast(buffer, src=0)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """See `ProcessGroup.leader_first`."""
        if not self.leads:
            distributed.barrier(group=self._words)
        yield
        if self.leads:
            distributed.barrier(group=self._words)

    def __exit__(self, *raised: object) -> None:
        """Leave the others; what the end of one of them breaks here is said in a line."""
        error = raised[1]
        if error is None:
            distributed.destroy_process_group()
        elif isinstance(error, RuntimeError) and any(word in str(error) for word in _BROKEN):
            reason = first_line(error)
            raise YoloError(f"another process has ended, or cannot be reached ({reason})") from error


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors of one type up to `_BUCKET` bytes."""
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
    """Whether torchrun has started this process along with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def make_process_group(options: TrainOptions) -> ProcessGroup:
    """Join the processes that torchrun has started, or make the group of a single process.

    Raises:
        ConfigError: the batch cannot be divided, or this machine does not have the device.
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
