"""Stops a run cleanly on SIGINT and SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by the first signal; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signal(*, patient: bool = False) -> Iterator[StopRequest]:
    """Turns the first SIGINT or SIGTERM into a request; a second one acts at once.

    Args:
        patient: a second one does nothing. Under torchrun a scheduler's signal may come twice, from
            the scheduler and from torchrun, which kills what does not end in time.

    Handlers can only be set in the main thread; elsewhere the request is never made.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(number: int, frame: FrameType | None) -> None:
        request.requested = True
        if not patient:
            restore()

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield request
    finally:
        restore()
