"""Everything that uses gevent: ending the requests of disconnected clients, and running code in a real thread.

A WSGI server notices a disconnected client only when it writes, and a model may think for minutes before there is
anything to write. Google would work, and charge, for nobody in the meantime.
"""

import socket
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

from proxy.upstream.sockets import CAN_TELL, is_open

try:
    from gevent import getcurrent
    from gevent.monkey import is_module_patched
    from gevent.threadpool import ThreadPool
except ImportError:  # plain threads only
    is_module_patched = None

_CHECK_EVERY_SECONDS = 0.25
_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def is_gevent() -> bool:
    """Tell whether requests run in greenlets of one thread."""
    return is_module_patched is not None and bool(is_module_patched("socket"))


class ClientWatch:
    """Ends the greenlet of a request when its client disconnects. Does nothing when requests run in plain threads."""

    def __init__(self) -> None:
        self._greenlets: dict[socket.socket, Any] = {}
        self._watcher: threading.Thread | None = None

    def start(self, sock: socket.socket | None) -> None:
        """Watch the client behind `sock` for the current greenlet, until `stop`."""
        if sock is None or not CAN_TELL or not is_gevent():
            return
        self._greenlets[sock] = getcurrent()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._run, name="client-watch", daemon=True)
            self._watcher.start()

    def stop(self, sock: socket.socket | None) -> None:
        """Stop watching this client. Harmless if it was not watched."""
        if sock is not None:
            self._greenlets.pop(sock, None)

    def _run(self) -> None:
        while True:
            time.sleep(_CHECK_EVERY_SECONDS)
            for sock, greenlet in list(self._greenlets.items()):
                if not is_open(sock):
                    self.stop(sock)
                    greenlet.kill(block=False)  # raises GreenletExit there, so the request releases everything


def run_in_thread(function: Callable[_Args, _Result], *args: _Args.args, **kwargs: _Args.kwargs) -> _Result:
    """Call `function` in a real thread, so that other greenlets can run; directly if there are none."""
    if not is_gevent():
        return function(*args, **kwargs)
    result: _Result = _thread().apply(function, args, kwargs)
    return result


@cache
def _thread() -> Any:
    """Return a pool of one thread, so that a flood of logins uses one core and leaves gevent's own pool free."""
    return ThreadPool(1)
