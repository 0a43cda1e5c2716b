"""The code blocks of the documentation: reading them, running them, comparing what they print.

How a fenced block is treated stands in its info string:

``bash``                       run; ``exit="2"`` tells its exit code where that is not 0
``bash title="Terminal 1"``    a broker or worker, left running until the page's end
``python``                     run; the blocks of a page share one interpreter
``LANGUAGE title="a.py"``      written to that file
``text``                       what the block before it prints
``norun="reason"``             not run
``host="login"``               done on that host, after the title; see `support.hosts`

In an expected output a line ``...`` stands for any lines, ``...`` in a line for any text. Times,
process numbers and the like are masked on both sides, and several spaces count as one.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: What documents call the folder in which a reader works.
HOME = "/home/me/project"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<info>[^`\n]*)$")
_OPTION = re.compile(r'([\w-]+)="([^"]*)"')

_MASKS = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}", "TIMESTAMP"),
    (r"\d\d:\d\d:\d\d", "CLOCK"),
    (r"process \d+ on [^)\s]+", "PROCESS"),
    (r"'pid': \d+", "PID"),
    (r"'host': '[^']*'", "HOST"),
    (r"'seconds': [\d.e-]+", "SECONDS"),
    (r"\d+\.\d+\.\d+\w*", "VERSION"),
    # The time in a row of `aserpc run`.
    (r"(?m) \d+\.\d\d (ok|failed|not converged)$", r" SECONDS \1"),
]


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    line: int
    language: str
    options: dict[str, str]
    text: str

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def title(self) -> str:
        """Its title: a file's name, a terminal, or nothing."""
        return self.options.get("title", "")

    @property
    def host(self) -> str:
        """The host it is for; empty where the page has only one."""
        return self.options.get("host", "")

    @property
    def is_service(self) -> bool:
        """Whether it is left running."""
        return self.language == "bash" and self.title.startswith("Terminal")

    @property
    def is_file(self) -> bool:
        """Whether it is written to a file."""
        return bool(self.title) and not self.is_service

    @property
    def is_run(self) -> bool:
        """Whether it is run."""
        return self.language in ("bash", "python") and not self.is_file and not self.reason

    @property
    def reason(self) -> str:
        """Why it is not run."""
        return self.options.get("norun", "")


def read_blocks(page: Path) -> list[Block]:
    """Return the code blocks of a Markdown file."""
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        at += 1
        if opening is None:
            continue
        start = at
        while lines[at].strip() != opening["ticks"]:
            at += 1
        language, _, rest = opening["info"].strip().partition(" ")
        text = textwrap.dedent("\n".join(lines[start:at]))
        blocks.append(Block(page, start, language, dict(_OPTION.findall(rest)), text))
        at += 1
    return blocks


def expected_outputs(blocks: list[Block]) -> dict[int, str]:
    """Return what blocks are said to print, by the line of the block that is run."""
    return {
        one.line: two.text
        for one, two in pairwise(blocks)
        if one.is_run and two.language == "text" and not two.title
    }


def difference(expected: str, actual: str, folder: Path) -> str | None:
    """Return what an output has other than it should have, None if nothing."""
    wanted, got = _masked(expected), _masked(actual.replace(str(folder), HOME))
    lines = [
        r"(?s:.*)" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*")
        for line in wanted.splitlines()
    ]
    if re.fullmatch("\n".join(lines), got):
        return None
    return f"expected:\n{wanted}\n\nprinted:\n{got}"


def _masked(text: str) -> str:
    text = "\n".join(re.sub(r"\s+", " ", line).strip() for line in text.strip().splitlines())
    for pattern, replacement in _MASKS:
        text = re.sub(pattern, replacement, text)
    return text
