"""Ctrl-C, SIGTERM and a closed terminal, for commands that have something to tidy up first."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.management.base import CommandError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopping_raises(message: str) -> Iterator[Callable[[], None]]:
    """Let whoever stops the command see `message` as a CommandError, once what is within has tidied up.

    What it yields is called when it is too late for that: the rest is done whatever comes.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def finish_anyway() -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def stop(signum: int, frame: FrameType | None) -> None:
        finish_anyway()  # a second one must not disturb the tidying
        raise CommandError(message)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup
            signal.signal(number, stop)
    try:
        yield finish_anyway
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
