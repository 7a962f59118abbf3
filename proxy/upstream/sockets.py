"""Whether the other side still holds a connection, and what to do when a client does not. No Django.

WSGI learns that a client left only when it writes to it, and a model may think for minutes before there is something
to write: meanwhile Google would work, and count, for nobody.
"""

import fcntl
import select
import socket
import struct
import termios
import threading
import time
from typing import Any

try:
    from gevent import getcurrent
    from gevent.monkey import is_module_patched
except ImportError:  # plain threads only
    is_module_patched = None

CAN_TELL = hasattr(socket, "TCP_INFO")
_ESTABLISHED = b"\x01"  # the first byte of Linux's tcp_info
_LOOK_EVERY_SECONDS = 0.25


def is_open(sock: socket.socket) -> bool:
    """Tell whether the other side still holds the connection: on Linux by its TCP state, in one system call."""
    try:
        if not CAN_TELL:  # an idle connection has nothing to say but that it ends
            return not select.select([sock], [], [], 0)[0]
        state: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state == _ESTABLISHED
    except OSError:
        return False


def has_unread(sock: socket.socket) -> bool:
    """Tell whether the other side has said something that nobody read: on an idle connection a sign of trouble."""
    [unread] = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))
    return bool(unread)


def is_gevent() -> bool:
    """Tell whether requests run in greenlets of one thread."""
    return is_module_patched is not None and bool(is_module_patched("socket"))


class ClientWatch:
    """Ends the greenlet of a request whose client has left. Does nothing where requests run in plain threads."""

    def __init__(self) -> None:
        self._greenlets: dict[socket.socket, Any] = {}
        self._watcher: threading.Thread | None = None

    def start(self, sock: socket.socket | None) -> None:
        """Watch the client behind `sock` for the current greenlet, until `stop`."""
        if sock is None or not CAN_TELL or not is_gevent():
            return
        self._greenlets[sock] = getcurrent()
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._look, name="client-watch", daemon=True)
            self._watcher.start()

    def stop(self, sock: socket.socket | None) -> None:
        """Do not watch this client any more; harmless when it was not watched."""
        if sock is not None:
            self._greenlets.pop(sock, None)

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_EVERY_SECONDS)
            for sock, greenlet in list(self._greenlets.items()):
                if not is_open(sock):
                    self.stop(sock)
                    greenlet.kill(block=False)  # GreenletExit, which closes what the request holds
