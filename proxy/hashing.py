"""Passwords are hashed in a real thread, so that a login holds up nobody's stream."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from proxy.sockets import is_gevent


class ThreadedHasher(PBKDF2PasswordHasher):
    """Django's own hasher; under gevent in the hub's thread pool, since hashing lets go of the interpreter's lock."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        if not is_gevent():
            return super().encode(password, salt, iterations)
        from gevent import get_hub  # noqa: PLC0415  # there is one

        return str(get_hub().threadpool.apply(super().encode, (password, salt, iterations)))
