"""Which properties a script needs of each geometry, learned from what it asks."""

from __future__ import annotations

#: A property that so many geometries in a row did not need is no longer asked for.
FORGET_AFTER = 3


class PropertyNeeds:
    """What to ask for in one request, so that a geometry needs only one."""

    def __init__(self) -> None:
        #: Geometries in a row that did not need the property.
        self._unneeded: dict[str, int] = {}
        self._here: set[str] = set()

    def note(self, name: str) -> None:
        """Take it that the present geometry needs a property."""
        self._here.add(name)
        self._unneeded.setdefault(name, 0)

    def next_geometry(self) -> None:
        """Begin another geometry."""
        for name in list(self._unneeded):
            count = 0 if name in self._here else self._unneeded[name] + 1
            if count >= FORGET_AFTER:
                del self._unneeded[name]
            else:
                self._unneeded[name] = count
        self._here.clear()

    def forget_others(self, name: str) -> None:
        """Take it that what was asked together with a property can't be had with it."""
        self._unneeded = {name: 0}

    def ask_for(self, name: str) -> list[str]:
        """Return what to ask for when a property is: it first, and what is needed besides."""
        return [name, *(other for other in self._unneeded if other != name)]
