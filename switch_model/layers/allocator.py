"""Keep freed memory within the process, for speed on Linux.

glibc returns a large freed block to the kernel, and asks for it again a moment later. A layer of many experts frees
gradients the size of all its experts in every step, and the page faults that follow cost more than the arithmetic:
with 64 experts a step took 2.4 times as long as a dense MLP's before, 1.5 to 1.8 times after.
"""

import ctypes
from functools import cache

# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
KEPT_BYTES, RETURNED_BYTES = 1 << 30, 1 << 16


@cache
def keep_freed_memory() -> bool:
    """Let malloc keep up to 1 GiB of freed memory, once per process. Returns whether the C library supports it."""
    return _set(KEPT_BYTES)


def return_freed_memory() -> bool:
    """Let malloc return blocks of 64 KiB and more to the kernel from now on, where memory matters more than speed.
    Returns whether the C library supports it."""
    return _set(RETURNED_BYTES)


def _set(size: int) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Not glibc.
        return False
    return all(mallopt(option, size) == 1 for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
