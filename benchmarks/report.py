"""What was measured: figures, ratios beside their targets, and what was left out and why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.timing import Spread, spread

#: How a unit of the table is made of the SI unit in the file.
SHOWN = {"s": ("µs", 1e6), "bytes": ("kB", 1e-3), "1/s": ("1/s", 1.0), "": ("", 1.0)}


@dataclass(frozen=True)
class Figure:
    """Something of one contender."""

    what: str
    contender: str
    unit: str
    value: Spread
    #: Processor time of a call by role, s: the median of the rounds.
    cpu: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """What two contenders are to each other, round by round."""

    what: str
    value: Spread
    target: str = ""
    met: bool | None = None


@dataclass
class Report:
    """All that was measured."""

    machine: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def figure(
        self,
        what: str,
        contender: str,
        values: Sequence[float],
        unit: str = "s",
        cpu: Sequence[dict[str, float]] = (),
    ) -> None:
        """Note what the rounds of a contender gave."""
        roles = cpu[0] if cpu else {}
        times = {role: spread(each.get(role, 0.0) for each in cpu).median for role in roles}
        self.figures.append(Figure(what, contender, unit, spread(values), times))

    def ratio(
        self,
        what: str,
        ours: Sequence[float],
        theirs: Sequence[float],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Note the ratio of two contenders' rounds, and whether it is what it should be."""
        value = spread(one / other for one, other in zip(ours, theirs, strict=True))
        if value.low < 0:  # noise was more than what should be measured: nothing was seen
            self.ratios.append(Ratio(f"{what} (unclear)", value))
        elif at_most is not None:
            self.ratios.append(Ratio(what, value, f"<= {at_most:g}", value.median <= at_most))
        elif at_least is not None:
            self.ratios.append(Ratio(what, value, f">= {at_least:g}", value.median >= at_least))
        else:
            self.ratios.append(Ratio(what, value))

    def skip(self, what: str) -> None:
        """Note what was not measured, and why."""
        self.skipped.append(what)

    def json(self) -> str:
        """Return all of it, times in seconds."""
        return json.dumps(asdict(self), indent=1)

    def text(self) -> str:
        """Return the tables."""
        parts = ["\n".join(f"{name}: {value}" for name, value in self.machine.items())]
        if self.ratios:
            rows = [
                (
                    r.what,
                    _range(r.value, 1.0),
                    r.target,
                    {None: "", True: "met", False: "MISSED"}[r.met],
                )
                for r in self.ratios
            ]
            parts.append(_table(("ratio", "median (quartiles)", "target", ""), rows))
        if self.figures:
            rows = []
            for f in self.figures:
                unit, factor = SHOWN[f.unit]
                cpu = ", ".join(f"{role} {seconds * 1e6:.0f}" for role, seconds in f.cpu.items())
                rows.append((f.what, f.contender, f"{_range(f.value, factor)} {unit}", cpu))
            parts.append(_table(("figure", "of", "median (quartiles)", "processor time, µs"), rows))
        parts += [f"left out: {what}" for what in self.skipped]
        return "\n\n".join(parts)


def _range(value: Spread, factor: float) -> str:
    median, low, high = (_short(x * factor) for x in (value.median, value.low, value.high))
    return f"{median} ({low} to {high})"


def _short(value: float) -> str:
    """Write a number with three digits, or all before the point."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a table that is one in Markdown, too."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
