"""Results survive the way over the wire whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aserpc.encoding import pack
from aserpc.errors import ProtocolError
from aserpc.payload import pack_results, unpack_results


def test_results_arrive_whole() -> None:
    results: dict[str, Any] = {
        "energy": -1.5,
        "free_energy": np.float64(-1.6),
        "forces": np.arange(6.0).reshape(2, 3),
        "stress": np.zeros(6, np.float32),
        "dielectric_tensor": np.eye(3, order="F"),
        "descriptors": np.arange(4000, dtype=np.float32).reshape(2, 2000),
        "extra": {"converged": True, "steps": [1, 2], "name": "x", "bands": np.arange(3)},
    }
    frames, left_out = pack_results(results)
    assert left_out == ()
    back = unpack_results(frames)
    assert list(back) == list(results)
    assert repr(back) == repr(results)
    assert type(back["free_energy"]) is np.float64
    for name in ("forces", "stress", "descriptors"):
        assert back[name].dtype == results[name].dtype
        back[name] += 1


def test_packed_results_do_not_follow_the_calculators_buffers() -> None:
    forces = np.zeros((2000, 3))
    frames, _ = pack_results({"forces": forces})
    forces += 1
    assert not unpack_results(frames)["forces"].any()


class Tensor:
    """Another library's array."""

    def __init__(self, ok: bool = True) -> None:
        self.ok = ok

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if not self.ok:
            raise TypeError("on the GPU")
        return np.arange(3.0)


class Thing:
    pass


def test_results_of_other_libraries_and_without_a_form() -> None:
    results: dict[Any, Any] = {"energy": Tensor(), "x": Tensor(ok=False), "y": Thing(), 3: 1.0}
    frames, left_out = pack_results(results)
    assert left_out == ("x", "y", "3")
    assert unpack_results(frames)["energy"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("value", [3, [1], {3: 1}, None])
def test_frames_that_are_no_results(value: object) -> None:
    with pytest.raises(ProtocolError):
        unpack_results(pack(value))
