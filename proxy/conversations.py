"""Remembers which Google project answered the last turn of a conversation, for all workers of a machine. No Django."""

import logging
import mmap
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

# The hash of a beginning, the id of the project, and when it answered, in minutes since 1970.
_ENTRY = struct.Struct("<QII")
_PLACES = 4  # for each hash; the oldest entry makes room
_GROUPS = 16_384
_SIZE = _ENTRY.size * _PLACES * _GROUPS  # 1 MiB
_LASTS_MINUTES = 60


class Conversations:
    """A table in a file of 1 MiB that all workers map into their memory.

    Two workers may write an entry at the same time. The worst that can come of it is a wrong project, which is only
    preferred.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._table: mmap.mmap | None = None
        self._is_broken = False

    def project_of(self, beginnings: Sequence[int]) -> int | None:
        """Return the project that answered the longest of these beginnings lately; None for a single question."""
        if len(beginnings) < 2 or (table := self._opened()) is None:
            return None
        now = int(time.time() / 60)
        for beginning in reversed(beginnings):
            for place in _places(beginning):
                found, project_id, minute = _ENTRY.unpack_from(table, place)
                if found == beginning and 0 <= now - minute <= _LASTS_MINUTES:
                    return int(project_id)
        return None

    def remember(self, beginnings: Sequence[int], project_id: int) -> None:
        """Store that a project has answered a conversation of these beginnings."""
        if not beginnings or not 0 < project_id < 2**32 or (table := self._opened()) is None:
            return
        entries = [(_ENTRY.unpack_from(table, place), place) for place in _places(beginnings[-1])]
        same = [place for (found, _, _), place in entries if found == beginnings[-1]]
        oldest = min(entries, key=lambda entry: entry[0][2])[1]
        _ENTRY.pack_into(table, (same or [oldest])[0], beginnings[-1], project_id, int(time.time() / 60))

    def _opened(self) -> mmap.mmap | None:
        if self._table is None and not self._is_broken:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                try:
                    # Not a hole: on a full disk, writing into one would end the process.
                    missing = _SIZE - os.fstat(descriptor).st_size
                    if missing > 0:
                        os.pwrite(descriptor, bytes(missing), _SIZE - missing)
                    self._table = mmap.mmap(descriptor, _SIZE)
                finally:
                    os.close(descriptor)
            except (OSError, ValueError) as exc:
                self._is_broken = True
                logger.warning("Conversations are not kept together: %s cannot be used (%s).", self._path, exc)
        return self._table


def _places(beginning: int) -> range:
    start = beginning % _GROUPS * _PLACES * _ENTRY.size
    return range(start, start + _PLACES * _ENTRY.size, _ENTRY.size)
