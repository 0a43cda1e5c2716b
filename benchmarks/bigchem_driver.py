"""The client of BigChem, in BigChem's own environment, which has no ASE.

``python -m benchmarks.bigchem_driver``; commands as in `benchmarks.driver`.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any


def pipelined(requests: int) -> dict[str, Any]:
    """Send many trivial tasks at once: BigChem's own addition of two numbers."""
    add = importlib.import_module("bigchem.tasks").add
    for result in [add.delay(1, 1) for _ in range(16)]:
        result.get(timeout=120)
    start = time.perf_counter()
    results = [add.delay(number, 1) for number in range(requests)]
    for result in results:
        result.get(timeout=120)
    return {"seconds": (time.perf_counter() - start) / requests}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(pipelined(json.loads(line)["requests"])), flush=True)
