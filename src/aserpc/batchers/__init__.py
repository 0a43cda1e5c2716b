"""Calculators that compute several structures in one call, and how one is found.

A batch calculator is anything with ``calculate_batch``, see `BatchCalculator`. For a calculator
without, an adapter is looked up by the calculator's class: those of the entry-point group
``aserpc.batchers`` first, then our own. Only what is used is imported.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from aserpc.errors import RegistryError
from aserpc.importing import explain, import_reference
from aserpc.providers import ProviderFailure, named_entry_points

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["GROUP", "BatchCalculator", "as_calculator", "find_batcher"]

logger = logging.getLogger(__name__)

#: Entry points of this group have a class's full name, ``"package.module.Class"``, and an adapter:
#: called with such a calculator, it returns a `BatchCalculator`, or None where it can't.
GROUP = "aserpc.batchers"

#: Our own adapters, by the class they are for.
OWN = {
    "chgnet.model.dynamics.CHGNetCalculator": "aserpc.batchers.chgnet:CHGNetBatcher",
    "sevenn.calculator.SevenNetCalculator": "aserpc.batchers.sevennet:SevenNetBatcher",
    "mace.calculators.mace.MACECalculator": "aserpc.batchers.mace:make_batcher",
    "torch_sim.models.interface.ModelInterface": "aserpc.batchers.torch_sim:TorchSimBatcher",
}

# What a subclass has of its own without computing anything else.
_HARMLESS = frozenset(
    {
        "__abstractmethods__", "__annotations__", "__dict__", "__doc__", "__firstlineno__",
        "__init__", "__module__", "__slots__", "__static_attributes__", "__weakref__", "_abc_impl",
    }
)  # fmt: skip


class BatchCalculator(Protocol):
    """Computes several structures in one call."""

    def calculate_batch(
        self, atoms: Sequence[Atoms], properties: Sequence[str]
    ) -> Sequence[Mapping[str, Any]]:
        """Return the results of each structure, in their order, as ASE's ``results``.

        Parameters
        ----------
        atoms
            Structures of any sizes; none, if there are none. They are the callee's to change.
        properties
            ASE properties that all must have among their results; more are welcome.

        Raises
        ------
        Exception
            Whatever, if one of the structures can't be computed: each is then computed alone.
        """


def find_batcher(calculator: Any) -> BatchCalculator | None:
    """Return what computes several structures as a calculator would; None: nothing does."""
    if callable(getattr(calculator, "calculate_batch", None)):
        batcher: BatchCalculator = calculator
        return batcher
    found = _adapter_of(calculator)
    if found is None:
        return None
    name, reference = found
    try:
        made: BatchCalculator | None = import_reference(reference)(calculator)
    except RegistryError as error:
        why = str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- perhaps for another version
        why = explain(error)
    else:
        return made
    logger.warning("nothing is computed together: %s, for %s, failed: %s", reference, name, why)
    return None


def as_calculator(made: Any) -> Any:
    """Return an ASE calculator for what computes batches only; None if it is nothing of that."""
    batcher = find_batcher(made)
    if batcher is None:
        return None
    from aserpc.batchers.single import BatchOnly

    return BatchOnly(batcher)


def _adapter_of(calculator: Any) -> tuple[str, str] | None:
    """Return the full name of a calculator's class, or of a base of it, and its adapter."""
    classes = type(calculator).__mro__
    if not any(cls.__module__ not in ("builtins", "abc") for cls in classes):
        return None
    failures: list[ProviderFailure] = []
    adapters = {**OWN, **_provided(failures)}
    for failure in failures:
        logger.warning("%s: %s", failure.provider, failure.error)
    for index, cls in enumerate(classes):
        name = f"{cls.__module__}.{cls.__qualname__}"
        if name in adapters:
            changed = _changes(calculator, cls, classes[:index])
            if not changed:
                return name, adapters[name]
            logger.info(
                "structures are computed one by one: %s changes %s of %s",
                type(calculator).__qualname__, ", ".join(sorted(changed)), name,
            )  # fmt: skip
            return None
    return None


def _provided(failures: list[ProviderFailure]) -> dict[str, str]:
    """Return the adapters of other packages; of a class, the first one's."""
    adapters: dict[str, str] = {}
    for name, reference in named_entry_points(GROUP, failures):
        adapters.setdefault(name, reference)
        if ":" in name or "." not in name:
            _warn_of(name)
    return adapters


@cache  # once: adapters are looked up several times
def _warn_of(name: str) -> None:
    """Say of an entry point that its name is no class's, so nothing is ever computed with it."""
    meant = name.replace(":", ".")
    is_full = "." in meant and all(part.isidentifier() for part in meant.split("."))
    logger.warning(
        "the entry point %r of %s, in %s, is not used: its name has %s; write %s",
        name,
        _packages(name) or "a package",
        GROUP,
        "a colon" if ":" in name else "no dot",
        repr(meant)
        if is_full
        else "the full name of the calculator's class, 'package.module.Class'",
    )


def _packages(name: str) -> str:
    """Return the installed packages that have an entry point of this name."""
    try:
        points = importlib.metadata.entry_points(group=GROUP)
        found = {point.dist.name for point in points if point.name == name and point.dist}
    except Exception:  # noqa: BLE001 -- whatever the metadata of a stranger's package do
        return ""
    return ", ".join(sorted(found))


def _changes(calculator: Any, base: type, classes: Sequence[type]) -> set[str]:
    """Return what a calculator computes otherwise than the class that there is an adapter for.

    The adapter would not know of it, and give other results than the calculator.
    """
    if inspect.isabstract(base):
        return set()  # an adapter for an interface calls what its classes are to define
    own = {name for cls in classes for name in vars(cls)} - _HARMLESS
    changed = {name for name in own if hasattr(base, name)}
    # A method that is replaced in the calculator itself.
    own = set(getattr(calculator, "__dict__", ()))
    return changed | {name for name in own if callable(inspect.getattr_static(base, name, None))}
