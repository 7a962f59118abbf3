"""Ctrl-C, SIGTERM and SIGHUP, for commands that must clean up before they exit."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.management.base import CommandError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def raise_on_stop(message: str) -> Iterator[Callable[[], None]]:
    """Raise CommandError with `message` in the body when a signal stops the command, so that the body can clean up.

    Yields a function that ignores these signals from then on, to call at the point of no return.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def ignore_signals() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def stop(signum: int, frame: FrameType | None) -> None:
        ignore_signals()  # a second one must not interrupt the cleanup
        raise CommandError(message)

    for number, handler in handlers.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield ignore_signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
