"""One ordered parallel map, for work that releases the interpreter lock (decoding, hashing)."""

from collections.abc import Callable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Tasks are handed out in runs: one queue entry per file is slow for sets of millions.
CHUNK_ITEMS = 16


def parallel_map(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, computed in threads.

    The exception of the first failing item, in the order of `items`, is raised at its place.
    """
    if len(items) <= CHUNK_ITEMS:
        yield from map(function, items)
        return
    with ThreadPool() as pool:
        yield from pool.imap(function, items, chunksize=CHUNK_ITEMS)
