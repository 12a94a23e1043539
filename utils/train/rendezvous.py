"""How the processes that torchrun has started find each other, again after each restart.

torchrun keeps one store of keys over all restarts. There a process may read the address that another one
left before it was killed, and call the dead. So the processes first agree on a name that no start before has
had, and all else is kept under it. The count of restarts in the environment would not do: the agents of
several machines count for themselves.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store

from utils.base.errors import YoloError

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
