"""What has happened in a chaos run: requests, faults, and who was there when."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: For how long after its end a fault may still have effects, s: processes start, connections are
#: made again, and what was lost is noticed. Machines that run tests are busy.
AFTERMATH = 6.0


@dataclass
class Asked:
    """A request, as its client's journal tells."""

    token: str
    client: str
    name: str
    work: str
    at: float
    deadline: float | None = None
    #: When and how it ended: by an answer that was right (`error` and `wrong` are empty) or not.
    ended: float | None = None
    error: str = ""
    text: str = ""
    wrong: str = ""

    def __str__(self) -> str:
        end = f"{self.ended - self.at:.2f} s" if self.ended is not None else "it has not ended"
        how = f"; {self.error}: {self.text}" if self.error else ""
        return f"{self.token} ({self.work}, {self.name!r}, asked at {self.at:.2f}, {end}){how}"


@dataclass
class Fault:
    """Something that was done to the service."""

    kind: str
    #: The calculator's name, the client's, or the side of the network.
    target: str
    at: float
    until: float = math.inf

    def __str__(self) -> str:
        lasted = "" if self.until == self.at else f" for {self.until - self.at:.2f} s"
        return f"{self.at:.2f} {self.kind} {self.target}{lasted}"


@dataclass
class Chronicle:
    """The records of a run.

    Parameters
    ----------
    folder
        Where clients leave their journals, and calculators what they computed.
    """

    folder: Path
    faults: list[Fault] = field(default_factory=list)
    #: From when to when some worker or manager was there for a name, and nothing was done to it.
    present: list[tuple[str, float, float]] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    #: Of what clients note besides.
    counts: Counter[str] = field(default_factory=Counter)
    #: What must not happen, and no fault explains.
    complaints: list[str] = field(default_factory=list)
    #: Clients that are there, and what they have answered to orders.
    _read: dict[Path, int] = field(default_factory=dict)

    def fault(self, kind: str, target: str, at: float, until: float | None = None) -> Fault:
        """Note a fault that begins, or is over at once."""
        fault = Fault(kind, target, at, at if until is None else until)
        self.faults.append(fault)
        return fault

    def read(self) -> None:
        """Read what the clients have added to their journals."""
        for path in sorted(self.folder.glob("*.journal")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[path] = self._read.get(path, 0) + len(line)
                    self._take(path.stem, json.loads(line))

    def _take(self, client: str, line: dict[str, Any]) -> None:
        kind, at = line.pop("kind"), line.pop("at")
        if kind == "asked":
            self.asked[line["token"]] = Asked(client=client, at=at, **line)
        elif kind == "ended":
            asked = self.asked[line["token"]]
            if asked.ended is not None:
                self.complaints.append(f"ended twice: {asked}")
            asked.ended, asked.error = at, line["error"]
            asked.text, asked.wrong = line["text"], line["wrong"]
        elif kind == "resent":
            self.counts[kind] += line["count"]
        elif kind == "twice":
            self.complaints.append(f"answered twice: {line['request']} of {client} at {at:.2f}")
        elif kind == "called":
            self.counts[f"{client} {line['order']}"] += 1

    def waiting(self) -> list[Asked]:
        """Return the requests that have not ended, but for those of clients that were killed."""
        killed = {fault.target for fault in self.faults if fault.kind == "kill client"}
        return [a for a in self.asked.values() if a.ended is None and a.client not in killed]

    def during(self, asked: Asked, *kinds: str, target: str = "") -> list[Fault]:
        """Return the faults of some kinds that may have had effects while a request waited."""
        ended = math.inf if asked.ended is None else asked.ended
        return [
            fault
            for fault in self.faults
            if fault.kind in kinds
            and target in ("", fault.target)
            and fault.at <= ended
            and fault.until + AFTERMATH >= asked.at
        ]

    def was_absent(self, name: str, since: float, until: float) -> bool:
        """Whether there was a moment without anybody for a name."""
        for begins, ends in sorted((b, e) for n, b, e in self.present if n == name):
            if begins > since:
                return True
            since = max(since, ends)
            if since >= until:
                return False
        return True

    def computed(self) -> Counter[str]:
        """Return how often each request was computed, or begun."""
        path = self.folder / "computed"
        return Counter(path.read_text().split() if path.exists() else [])
