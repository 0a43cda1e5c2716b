"""Search for histories of messages that break a state: ``pip install atheris`` first.

    python tests/fuzz/fuzz_states.py TARGET FOLDER [-max_total_time=300 ...]

As `fuzz_decoders`, with the targets of `state.any_messages`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["aserpc", "state.any_messages", "support.choices"]):
    from state.any_messages import TARGETS
    from support.fuzzed import quiet


def main() -> None:
    """Fuzz a target until libFuzzer ends it."""
    name = sys.argv.pop(1)
    Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
    with quiet():
        atheris.Setup(sys.argv, TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
