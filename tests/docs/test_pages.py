"""What the documentation says is so: its blocks are run, page by page."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.blocks import ROOT, read_blocks
from support.reader import Reader

PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: Languages of blocks that only show something.
SHOWN = ("text", "mermaid", "toml", "json")


def name(page: Path) -> str:
    return page.relative_to(ROOT / "docs").as_posix()


def is_for_one_host(page: Path) -> bool:
    """Whether a page is done here; tests/network does the others."""
    blocks = read_blocks(page)
    return any(b.is_run for b in blocks) and not any(b.host for b in blocks)


@pytest.mark.parametrize("page", [*filter(is_for_one_host, PAGES)], ids=name)
def test_blocks_run_and_print_what_they_show(reader: Reader, page: Path) -> None:
    reader.follow(page)


def test_the_pages_for_several_hosts_are_done_too() -> None:
    done = (ROOT / "tests" / "network" / "test_documented.py").read_text(encoding="utf-8")
    for page in PAGES:
        assert f'"{page.name}"' in done or not any(b.host for b in read_blocks(page))


def test_every_block_has_a_language_that_is_known() -> None:
    known = (*SHOWN, "bash", "python")
    blocks = [block for page in PAGES for block in read_blocks(page)]
    assert [block.where for block in blocks if block.language not in known] == []


def test_few_blocks_are_not_run_and_each_has_its_reason() -> None:
    blocks = [block for page in PAGES for block in read_blocks(page)]
    runnable = [block for block in blocks if block.language in ("bash", "python")]
    left_out = [b for b in runnable if not (b.is_run or b.is_service or b.is_file)]
    assert all(len(block.reason) > 10 for block in left_out)
    assert len(left_out) <= len(runnable) // 8


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name(page) for page in PAGES if f"- {name(page)}\n" not in navigation] == []
