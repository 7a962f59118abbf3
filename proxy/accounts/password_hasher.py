"""Hashes passwords in a real thread, so that a login does not hold up streams."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from proxy.greenlets import run_in_thread


class ThreadedHasher(PBKDF2PasswordHasher):
    """Django's own hasher, in a thread: hashing releases the interpreter's lock."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return run_in_thread(super().encode, password, salt, iterations)
