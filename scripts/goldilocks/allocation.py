"""Memory that tensors leave behind, kept for the next ones."""

import ctypes

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD, LARGEST_TRIM_THRESHOLD = 2**25, 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, where the system's allocator can be told so.

    Tangents come and go in pieces of megabytes. Given back to the system and taken again, each page costs a fault, up
    to a third of all time. For processes that compute and end, not for a library to decide.
    """
    allocator = ctypes.CDLL(None)
    if hasattr(allocator, "mallopt"):
        allocator.mallopt(MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        allocator.mallopt(TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
