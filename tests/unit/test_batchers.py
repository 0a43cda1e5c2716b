"""How a batch calculator is found, and what the contract for it finds."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from aserpc.batchers import GROUP, _warn_of, as_calculator, find_batcher
from aserpc.batchers.single import BatchOnly
from aserpc.entries import CalculatorEntry
from aserpc.errors import RegistryError
from aserpc.testing import BatcherContract
from support.batches import Together, Wrong
from support.calculators import Spring
from support.packages import install_metadata


class Adapter:
    """An adapter that another package could have."""

    def __init__(self, calculator: Any) -> None:
        self.calculator = calculator

    def calculate_batch(self, atoms: Sequence[Atoms], properties: Sequence[str]) -> list[Any]:
        return [self.calculator.compute(one, list(properties)) for one in atoms]


def refuses(calculator: Any) -> None:
    """Says that this calculator is none for batches."""


def fails(calculator: Any) -> None:
    raise AttributeError("'Spring' object has no attribute 'model'")


def exits(calculator: Any) -> None:
    sys.exit("no GPU here")


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points that installed packages have, by name."""
    adapters: dict[str, str] = {}
    original = importlib.metadata.entry_points

    def entry_points(**asked: Any) -> Any:
        if asked.get("group") != GROUP:
            return original(**asked)
        points = (
            importlib.metadata.EntryPoint(name, value, GROUP) for name, value in adapters.items()
        )
        return importlib.metadata.EntryPoints(points)

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    return adapters


def name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


HERE = __name__


# ---- finding one ---------------------------------------------------------------------------------


def test_a_calculator_that_has_it_is_its_own_batcher() -> None:
    calculator = Together()
    assert find_batcher(calculator) is calculator


def test_most_calculators_have_none() -> None:
    assert find_batcher(EMT()) is None
    assert find_batcher(Spring()) is None
    assert find_batcher(object()) is None


def test_an_entry_point_names_the_class_and_its_adapter(adapters: dict[str, str]) -> None:
    adapters[name_of(Spring)] = f"{HERE}:Adapter"
    calculator = Spring()
    found = find_batcher(calculator)
    assert isinstance(found, Adapter)
    assert found.calculator is calculator
    assert find_batcher(EMT()) is None


def test_adapters_of_others_are_not_imported(adapters: dict[str, str]) -> None:
    adapters["elsewhere.Calculator"] = "no_such_module:Adapter"
    adapters[name_of(Spring)] = f"{HERE}:Adapter"
    assert find_batcher(Spring()) is not None


def test_an_adapter_may_refuse(adapters: dict[str, str]) -> None:
    adapters[name_of(Spring)] = f"{HERE}:refuses"
    assert find_batcher(Spring()) is None


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        (f"{HERE}:fails", "has no attribute 'model'"),
        (f"{HERE}:exits", "sys.exit('no GPU here')"),
        (f"{HERE}:Missing", "has no 'Missing'"),
        ("no_such_module:Adapter", "no module 'no_such_module'"),
    ],
)
def test_an_adapter_that_fails_is_told_and_not_used(
    adapters: dict[str, str], reference: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    adapters[name_of(Spring)] = reference
    assert find_batcher(Spring()) is None
    assert why in caplog.text
    assert name_of(Spring) in caplog.text


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("support.calculators:Spring", "a colon; write 'support.calculators.Spring'"),
        ("Spring", "no dot; write the full name of the calculator's class"),
        (":Spring", "a colon; write the full name of the calculator's class"),
    ],
)
def test_a_name_that_is_no_class_s_is_told_once(
    name: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _warn_of.cache_clear()
    install_metadata(tmp_path, "springs-batches", f"{name} = {HERE}:Adapter", GROUP)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_batcher(Spring()) is None
    assert find_batcher(EMT()) is None
    (told,) = caplog.messages
    assert f"{name!r} of springs-batches, in aserpc.batchers, is not used" in told
    assert why in told


def test_a_name_that_is_a_class_s_is_not_told_of(
    adapters: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    adapters["elsewhere.Calculator"] = f"{HERE}:Adapter"
    find_batcher(Spring())
    assert caplog.messages == []


class Named(Spring):
    """Computes as its base does, with other arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = "mine"

    def describe(self) -> str:
        return "mine"


class Shifted(Spring):
    """Computes something else than its base."""

    def compute(self, atoms: Atoms, properties: list[str]) -> dict[str, Any]:
        return {**super().compute(atoms, properties), "energy": 7.0}


def test_a_subclass_that_computes_the_same_has_its_base_s(adapters: dict[str, str]) -> None:
    adapters[name_of(Spring)] = f"{HERE}:Adapter"
    assert isinstance(find_batcher(Named()), Adapter)


def test_a_subclass_that_computes_otherwise_has_none(
    adapters: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    adapters[name_of(Spring)] = f"{HERE}:Adapter"
    assert find_batcher(Shifted()) is None
    assert "Shifted changes compute" in caplog.text
    adapters[name_of(Shifted)] = f"{HERE}:Adapter"
    assert isinstance(find_batcher(Shifted()), Adapter)


def test_a_calculator_with_another_method_of_its_own_has_none(adapters: dict[str, str]) -> None:
    adapters[name_of(Spring)] = f"{HERE}:Adapter"
    calculator = Spring()
    calculator.compute = lambda atoms, properties: {}  # type: ignore[method-assign]
    assert find_batcher(calculator) is None


# ---- what computes batches only ------------------------------------------------------------------


class OnlyBatches:
    """No calculator of ASE's."""

    implemented_properties = ("energy", "forces")

    def calculate_batch(self, atoms: Sequence[Atoms], properties: Sequence[str]) -> list[Any]:
        return [Together().compute(one, list(properties)) for one in atoms]


def test_it_is_served_as_a_calculator() -> None:
    calculator = CalculatorEntry("it", OnlyBatches).make()
    assert isinstance(calculator, BatchOnly)
    atoms = Atoms("H", [(2, 0, 0)])
    atoms.calc = calculator
    assert atoms.get_potential_energy() == 2
    assert calculator.implemented_properties == ["energy", "forces"]
    assert find_batcher(calculator) is calculator


def test_its_class_is_none() -> None:
    with pytest.raises(RegistryError, match="the class OnlyBatches, not an instance"):
        CalculatorEntry("it", lambda: OnlyBatches).make()


def test_anything_else_is_no_calculator() -> None:
    assert as_calculator(object()) is None
    with pytest.raises(RegistryError, match="returned 5"):
        CalculatorEntry("it", lambda: 5).make()


# ---- torch-sim, with a stand-in ------------------------------------------------------------------


class Tensor:
    """What an adapter needs of a tensor."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self.values


class Model:
    """A model of torch-sim; a state is a list of Atoms, which have the same periodicity."""

    device, dtype, compute_forces, compute_stress = "cpu", "float64", True, True

    def __init__(self) -> None:
        self.states: list[list[Atoms]] = []

    def __call__(self, state: list[Atoms]) -> dict[str, Tensor]:
        self.states.append(state)
        results = [Together().compute(atoms, []) for atoms in state]
        return {
            "energy": Tensor([each["energy"] for each in results]),
            "forces": Tensor(np.concatenate([each["forces"] for each in results])),
            "stress": Tensor([np.full((3, 3), float(len(atoms))) for atoms in state]),
        }


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    io = ModuleType("torch_sim.io")
    io.atoms_to_state = lambda atoms, *_, **__: atoms  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_sim", ModuleType("torch_sim"))
    monkeypatch.setitem(sys.modules, "torch_sim.io", io)
    return Model()


def test_systems_of_one_state_have_the_same_periodicity(model: Model) -> None:
    from aserpc.batchers.torch_sim import TorchSimBatcher

    structures = [Atoms(f"H{n}", [(n, 0, 0)] * n, pbc=n % 2, cell=[9] * 3) for n in range(1, 6)]
    found = TorchSimBatcher(model).calculate_batch(structures, ["energy"])
    assert [[len(atoms) for atoms in state] for state in model.states] == [[1, 3, 5], [2, 4]]
    for atoms, results in zip(structures, found, strict=True):
        assert results["energy"] == Together().compute(atoms, [])["energy"]
        assert results["forces"].shape == (len(atoms), 3)
        assert results["stress"].tolist() == [len(atoms)] * 6


# ---- the contract --------------------------------------------------------------------------------


class TestTogether(BatcherContract):
    """A right one."""

    def make_calculator(self) -> Together:
        return Together()

    def make_bad_structure(self) -> Atoms:
        return Atoms("H", info={"bad": "structure"})


class TestOnlyBatches(BatcherContract):
    """An object that is served, too."""

    def make_calculator(self) -> OnlyBatches:
        return OnlyBatches()


class Contract(BatcherContract):
    __test__ = False

    def __init__(self, how: str) -> None:
        self.how = how

    def make_calculator(self) -> Wrong:
        return Wrong(self.how)


@pytest.mark.parametrize(
    "how",
    ["raises", "too few", "order", "shape", "missing", "nan", "moves", "numbers", "buffer"],
)
def test_the_contract_finds_what_is_wrong(how: str) -> None:
    contract = Contract(how)
    with pytest.raises((AssertionError, RuntimeError)):
        contract.test_results_are_those_of_each_structure_alone()


@pytest.mark.parametrize("alone", [Together, OnlyBatches])
def test_the_contract_finds_numbers_that_are_objects(alone: type[Any]) -> None:
    class Objects(alone):  # type: ignore[misc]
        def calculate_batch(self, atoms: Sequence[Atoms], properties: Sequence[str]) -> Any:
            found = super().calculate_batch(atoms, properties)
            return [{**each, "forces": each["forces"].astype(object)} for each in found]

    class Its(BatcherContract):
        def make_calculator(self) -> Any:
            return Objects()

    with pytest.raises(AssertionError, match="forces has the dtype object"):
        Its().check()


def test_the_contract_finds_a_calculator_that_is_not_as_it_was() -> None:
    with pytest.raises(AssertionError, match="energy"):
        Contract("leaves").test_the_calculator_alone_is_as_it_was()


def test_the_contract_finds_a_buffer_that_is_used_again() -> None:
    with pytest.raises(AssertionError, match="forces"):
        Contract("buffer").test_results_stay_when_the_next_batch_is_computed()


def test_the_contract_says_what_it_has_shown() -> None:
    assert "test_no_structure_is_a_batch" in TestTogether().check()
