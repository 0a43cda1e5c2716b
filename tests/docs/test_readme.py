"""What the README says is so: every block is run, and every table is the code's own."""

from __future__ import annotations

import re

import pytest

from aserpc.settings import options
from support.blocks import ROOT, Block, read_blocks
from support.reader import PROGRAMS, Reader

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")

#: How the two commands that set everything up begin.
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q "


def set_up_commands() -> list[str]:
    return [block.text for block in read_blocks(README) if block.text.startswith(SET_UP)]


def without_set_up(command: str) -> str:
    """Return a command that makes an environment as it runs in the present one."""
    if not command.startswith(SET_UP):
        return command
    last = command.rpartition(" && ")[2]
    # This test runs in what the second command starts.
    return "true" if "pytest" in last else last.replace(".venv/bin", str(PROGRAMS))


@pytest.mark.timeout(120)
def test_every_block_runs_and_prints_what_it_shows(reader: Reader) -> None:
    reader.copy("tests/data")
    reader.follow(README, without_set_up)


def test_every_block_is_run_written_or_an_output() -> None:
    def is_covered(block: Block) -> bool:
        return (
            block.is_run
            or block.is_service
            or block.is_file
            or block.language in ("text", "mermaid")
        )

    assert [block.where for block in read_blocks(README) if not is_covered(block)] == []


def test_two_commands_set_everything_up() -> None:
    main_job, tests = set_up_commands()
    assert re.fullmatch(
        re.escape(SET_UP) + r"\. && \.venv/bin/aserpc run EMT tests/data/\S+ --relax", main_job
    )
    assert tests == f"{SET_UP}-e '.[test]' && .venv/bin/python -m pytest"


def test_ci_runs_the_test_commands_as_they_stand() -> None:
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("no .ci/run here, as in a source distribution")
    heavy = re.findall(r"`(\.venv/bin/python -m pytest [^`]*)`", TEXT)
    assert len(heavy) == 1
    lines = script.read_text(encoding="utf-8").splitlines()
    assert {set_up_commands()[1], *heavy} <= set(lines)


def test_settings_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(ASERPC_\w+)` \| ([^|]*?) \|", TEXT, re.MULTILINE))
    assert rows == {
        option.variable: f"{option.default} {option.unit}" if option.unit else f"`{option.default}`"
        for option in options()
    }


def test_it_is_short_and_in_order() -> None:
    assert len(TEXT.splitlines()) < 200
    assert re.findall(r"^## (.*)$", TEXT, re.MULTILINE) == [
        "Run it",
        "Use it from Python",
        "Serve your own calculator",
        "How it works",
        "Settings",
        "Links",
    ]
    assert TEXT.count("```mermaid") == 1


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)", TEXT)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
