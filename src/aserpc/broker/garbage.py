"""Python's collector of garbage, in a process that is a broker's."""

from __future__ import annotations

import gc

#: As `gc.set_threshold` takes them.
THRESHOLDS = 100_000, 20, 50


def collect_rarely() -> None:
    """Have the collector look seldom; a broker leaves it nothing to collect.

    What waits is most of what it would look through. By default it does that each time when a
    quarter has been replaced, which with 100,000 requests takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()  # modules and the like, which stay
    gc.set_threshold(*THRESHOLDS)
