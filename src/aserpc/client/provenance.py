"""Where results come from."""

from __future__ import annotations

from typing import Any

from aserpc.messages import Answer, unpack_about


def provenance(answer: Answer) -> dict[str, Any]:
    """Return ``factory``, ``args``, ``kwargs`` and ``versions`` of the calculator and its packages,
    ``python``, ``host`` and ``pid`` of the worker, ``seconds`` of the calculation, and
    ``batch_size``: of how many structures together.
    """  # noqa: D205
    return {**unpack_about(answer.about), "seconds": answer.seconds, "batch_size": answer.batch}
