"""Passwords are hashed in a real thread, so that a login holds up nobody's stream."""

from functools import cache
from typing import Any

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from proxy.upstream.sockets import is_gevent


class ThreadedHasher(PBKDF2PasswordHasher):
    """Django's own hasher; under gevent in a thread, since hashing lets go of the interpreter's lock."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if not is_gevent():
            return super().encode(password, salt, iterations)
        return str(_thread().apply(super().encode, (password, salt, iterations)))


@cache
def _thread() -> Any:
    """Return a pool of one thread: a flood of logins takes one core, and leaves the hub's pool to look up hosts."""
    from gevent.threadpool import ThreadPool  # noqa: PLC0415  # there is one

    return ThreadPool(1)
