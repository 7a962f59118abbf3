"""Whether the other side still holds a connection. No Django."""

import fcntl
import select
import socket
import struct
import termios

CAN_TELL = hasattr(socket, "TCP_INFO")
_ESTABLISHED = b"\x01"  # the first byte of Linux's tcp_info


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
