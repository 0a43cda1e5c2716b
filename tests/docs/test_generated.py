"""The parts of the documentation that are made from the code, and those that quote it."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
from types import ModuleType

import pytest

import aserpc
from aserpc import errors, messages
from aserpc.broker.tables import JOB_TRANSITIONS, WORKER_TRANSITIONS, JobState
from aserpc.manager.tables import HEALTH_TRANSITIONS, PROCESS_TRANSITIONS
from aserpc.settings import options
from aserpc.spawn import SpawnConfig
from aserpc.worker.state import TRANSITIONS
from support.blocks import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_mark_is_replaced(generate: ModuleType) -> None:
    for page in DOCS.rglob("*.md"):
        text = generate.on_page_markdown(page.read_text(encoding="utf-8"), page=None)
        assert "<!-- generate" not in text, page
        assert "norun=" not in text, page
        assert 'exit="' not in text, page
        assert 'host="' not in text, page


def test_every_setting_is_listed(generate: ModuleType) -> None:
    text = generate.settings()
    assert all(f"`{option.variable}`" in text and option.help in text for option in options())


def test_every_command_is_listed(generate: ModuleType) -> None:
    text = generate.commands()
    commands = ("broker", "worker", "list", "status", "shutdown", "run", "tunnel", "verify")
    for command in (*commands, "manager", "up", "reload", "logs", "env build", "env check"):
        assert f"\n## aserpc {command}\n" in f"\n{text}"
    for option in ("--queue-timeout", "--allow-mixed", "--idle-timeout", "--workdir", "--gpus"):
        assert option in text


def test_every_key_of_a_spawn_configuration_has_its_meaning(generate: ModuleType) -> None:
    text = generate.spawn_keys()
    keys = {field.name for field in dataclasses.fields(SpawnConfig)} - {"name", "source"}
    cell = r"`(?:[^|]|\\\|)+`"  # a bar in it is escaped
    assert set(re.findall(rf"^\| `(\w+)` \| {cell} \| {cell} \| \S.* \|$", text, re.M)) == keys


def test_every_error_is_listed(generate: ModuleType) -> None:
    text = generate.errors()
    for name in errors.__all__:
        assert f"\n### {name}\n" in text
        assert name in (errors.__doc__ or "")


def test_every_message_is_listed_once(generate: ModuleType) -> None:
    text = generate.messages()
    kinds = {
        *messages.FROM_CLIENT,
        *messages.TO_CLIENT,
        *messages.FROM_WORKER,
        *messages.TO_WORKER,
        *messages.TO_MANAGER,
    }
    for kind in kinds:
        assert text.count(f"\n### {kind.KIND}\n") == 1
    assert "| `deadline` | `float \\| None` | `None` | Seconds left" in text


@pytest.mark.parametrize(
    ("part", "transitions"),
    [
        ("requests", JOB_TRANSITIONS),
        ("workers", WORKER_TRANSITIONS),
        ("phases", TRANSITIONS),
        ("processes", PROCESS_TRANSITIONS),
        ("health", HEALTH_TRANSITIONS),
    ],
)
def test_every_transition_is_drawn(
    generate: ModuleType, part: str, transitions: dict[tuple[object, object], str]
) -> None:
    text = generate.PARTS[part]()
    for before, after in transitions:
        assert f"    {before.name} --> {after.name}\n" in text  # type: ignore[attr-defined]
    assert all(when in text for when in transitions.values())


def test_every_state_has_its_meaning(generate: ModuleType) -> None:
    text = generate.requests()
    assert all(re.search(rf"\| `{state.name}` \| \w.* \|", text) for state in JobState)


def test_every_public_name_is_in_the_reference(generate: ModuleType) -> None:
    page = generate.expand((DOCS / "reference" / "python.md").read_text(encoding="utf-8"))
    names = set(aserpc.__all__) - set(errors.__all__) - {"__version__"}
    assert [name for name in sorted(names) if f"\n## {name}\n" not in page] == []


def test_troubleshooting_quotes_what_the_code_says() -> None:
    page = (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    texts = list(quotable())
    quoted = re.findall(r"^### `(.*)`$", page, re.MULTILINE)
    assert len(quoted) > 30
    patterns = [".*".join(map(re.escape, quote.split("…"))) for quote in quoted]
    assert [
        quote
        for quote, pattern in zip(quoted, patterns, strict=True)
        if not any(re.search(pattern, text) for text in texts)
    ] == []


def test_troubleshooting_names_every_error_of_the_service() -> None:
    page = (DOCS / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    bases = {"AserpcError", "ServiceError", "CancelledRequestError", "PayloadError"}
    assert [name for name in errors.__all__ if name not in bases and f"`{name}`" not in page] == []


def quotable() -> list[str]:
    """Return all texts of the package; … stands for what is filled in."""
    texts = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"%[sdrg]", "…", node.value))
    return texts
