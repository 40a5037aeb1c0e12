"""Where the processes of one start find each other, apart from those of an earlier start.

torchrun gives a restarted run the store of the run before (seen in torch 2.13), and in it lie the
addresses of processes that are gone: who reads one of them first waits for the dead. Every start
therefore meets under a prefix of its own, which its first process makes up and tells the others.
"""

import time
import uuid

from torch.distributed.distributed_c10d import PrefixStore, Store

from hvae.errors import TrainingError

_PATIENCE_SECONDS = 600.0
_PAUSE_SECONDS = 0.02


def meet(store: Store, rank: int, size: int) -> Store:
    """Returns the part of a store that the processes of this start share, and no others.

    A process asks under a name that it alone uses, so no answer to an earlier start can be meant
    for it. The first process answers whoever asks until all are there.

    Raises:
        TrainingError: if they are not all there within ten minutes.
    """
    own = uuid.uuid4().hex
    if rank == 0:
        _gather_others(store, own, size)
        return PrefixStore(own, store)
    store.set(f"asks/{rank}", own)
    place = store.get(f"answer/{own}").decode()
    store.set(f"{place}/here/{rank}", "")
    return PrefixStore(place, store)


def _gather_others(store: Store, place: str, size: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    absent, answered = set(range(1, size)), set[str]()
    while absent:
        for rank in sorted(absent):
            if store.check([f"{place}/here/{rank}"]):
                absent.remove(rank)
            elif store.check([f"asks/{rank}"]):
                asker = store.get(f"asks/{rank}").decode()
                if asker not in answered:  # one of an earlier start does no harm
                    store.set(f"answer/{asker}", place)
                    answered.add(asker)
        if time.monotonic() > deadline:
            raise TrainingError(
                f"{len(absent)} of {size} processes did not come within "
                f"{_PATIENCE_SECONDS / 60:.0f} minutes; the first is number {min(absent)}"
            )
        time.sleep(_PAUSE_SECONDS)
