"""Search for bytes that break a decoder, guided by what they reach: ``pip install atheris`` first.

    python tests/fuzz/fuzz_decoders.py TARGET FOLDER [-max_total_time=300 ...]

TARGET is a name in `support.fuzzed.TARGETS`. FOLDER keeps what reached something new; the rest goes
to libFuzzer. What breaks a target belongs into ``tests/data/corpus/TARGET`` once it is mended: an
ordinary test tries it again for ever.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import atheris
import msgpack
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms, FixBondLength

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["aserpc", "ase.constraints", "support.choices"]):
    from aserpc.broker.roster import Roster, pack_roster
    from aserpc.encoding import pack
    from aserpc.header import pack_header
    from aserpc.payload import pack_atoms, pack_results
    from aserpc.remote_error import report
    from state.test_header import MESSAGES
    from support.fuzzed import TARGETS, joined, quiet


def systems() -> list[Atoms]:
    """Return structures with a bit of everything."""
    water, copper = molecule("H2O"), bulk("Cu", cubic=True)
    water.info.update(charge=1, tags=["a", 2.5, None, (1, 2)], flags={"x": True, 3: 1j})
    water.set_constraint([FixAtoms([0]), FixBondLength(1, 2)])
    copper.set_momenta(np.ones((4, 3)))
    copper.set_array("words", np.array(["a", "b", "c", "d"], object))
    copper.set_initial_magnetic_moments([1, 2, 3, 4])
    return [Atoms(), water, copper]


def seeds(target: str) -> list[bytes]:
    """Return what is right, to begin with."""
    own = {
        "energy": -1.5,
        "forces": np.arange(6.0).reshape(2, 3),
        "table": np.zeros(2, [("a", "<f8"), ("b", "|S3")]),
        "when": np.datetime64("2020-01-01"),
        "order": np.asfortranarray(np.ones((2, 3), np.float32)),
        "large": np.zeros(1025),
        "big": 10**30,
    }
    error = {"kind": "calculation", **report(ValueError("no"))}
    return {
        "header": [pack_header(message) for message in MESSAGES],
        "about": [msgpack.packb({"factory": "x", "args": [1], "kwargs": {"a": {"b": None}}})],
        "payload": [joined(pack(value)) for value in (own, [own, (1, 2j)], None)],
        "atoms": [joined(pack_atoms(system).frames()) for system in systems()],
        "results": [joined(pack_results(own)[0])],
        "error": [msgpack.packb(error), msgpack.packb({**error, "kind": "no_workers"})],
        "roster": [
            pack_roster(
                Roster(
                    {b"\x00abc": ("emt", [(b"s" * 16, 7)]), b"\x01def": ("lj", [])},
                    {b"\x00m": {"emt": 1}},
                )
            )
        ],
        "spawned": [
            json.dumps(
                {"a1": {"name": "emt", "gpus": ["0"], "handle": {"pid": 7, "started": 1}}}
            ).encode()
        ],
    }.get(target, [bytes(range(256))])


def main() -> None:
    """Fuzz a target until libFuzzer ends it."""
    name, folder = sys.argv.pop(1), Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds(name):
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    with quiet():
        atheris.Setup(sys.argv, TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
