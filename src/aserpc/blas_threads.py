"""The threads of numpy's linear algebra, which hinder each other where many threads call it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager


def one_each() -> AbstractContextManager[object]:
    """Have each thread that calls linear algebra do it alone, for the time of the block.

    Of OpenBLAS there is one team of threads in a process, for which several callers wait by
    spinning. Needs threadpoolctl; without, nothing is changed.
    """
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    limits: AbstractContextManager[object] = threadpool_limits(limits=1, user_api="blas")
    return limits
