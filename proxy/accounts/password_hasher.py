"""Hashes passwords in a real thread, so that a login does not block streams."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from proxy.greenlets import run_in_thread


class ThreadedHasher(PBKDF2PasswordHasher):
    """Django's own hasher, run in a thread. Hashing releases the interpreter lock."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        return run_in_thread(super().encode, password, salt, iterations)
