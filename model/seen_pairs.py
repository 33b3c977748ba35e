"""Which pairs of a corpus were there already, remembered in a file instead of in memory.

Knows: 64-bit keys. Does not know: what a key stands for.

An open-addressing table (Knuth, volume 3, 6.4, linear probing) in a memory-mapped file that has no name: the system
keeps of it in memory what it has room for. A Python set of 10 million keys takes 0.9 GB.
"""

import errno
import mmap
import os
import tempfile
from typing import IO

FIRST_SLOTS = 1 << 16
MAX_LOAD = 0.6
SLOT_BYTES = 8


def reserve(file: IO[bytes], num_bytes: int) -> None:
    """Makes a file of zeros for which there is room: to write to a mapped one on a full disk ends the process (SIGBUS).

    Raises:
        OSError: there is no room; it names the folder for temporary files.
    """
    file.truncate(num_bytes)
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot say
            return
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from None


class SeenPairs:
    """A set of 64-bit keys; 0 stands for an empty slot, so the key 0 is kept as 1.

    Raises:
        OSError: there is no room for temporary files.
    """

    def __init__(self) -> None:
        self.num_keys = 0
        self.resize(FIRST_SLOTS)

    def resize(self, num_slots: int) -> None:
        with tempfile.TemporaryFile() as file:
            reserve(file, num_slots * SLOT_BYTES)
            self.memory = mmap.mmap(file.fileno(), 0)
        self.slots = memoryview(self.memory).cast("Q")
        self.mask = num_slots - 1

    def place_of(self, key: int) -> int:
        """The slot that holds ``key``, or the empty one where it belongs."""
        place = key & self.mask
        while self.slots[place] not in (0, key):
            place = (place + 1) & self.mask
        return place

    def add(self, key: int) -> bool:
        """Whether ``key`` (0 to 2 ** 64 - 1) is new; from now on it is not."""
        key = key or 1
        place = self.place_of(key)
        if self.slots[place]:
            return False
        self.slots[place] = key
        self.num_keys += 1
        if self.num_keys > MAX_LOAD * len(self.slots):
            self.grow()
        return True

    def grow(self) -> None:
        old, old_memory = self.slots, self.memory
        self.resize(2 * len(old))
        for key in old:
            if key:
                self.slots[self.place_of(key)] = key
        old.release()
        old_memory.close()
