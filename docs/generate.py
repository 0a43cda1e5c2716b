"""The parts of the documentation that are made from the code.

A line ``<!-- generate: NAME -->`` of a page is replaced by what the function of that name here
returns; mkdocs calls `on_page_markdown` for every page. Nothing here needs mkdocs.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

_MARK = re.compile(r"^<!-- generate: ([\w-]+)(?: (\S+))? -->$", re.MULTILINE)
#: Options of code blocks that only the tests understand.
_TEST_OPTIONS = re.compile(r'^( *```\w+.*?) (?:exit|norun)="[^"]*"', re.MULTILINE)
#: The machine that a block is for, which its title tells.
_HOST = re.compile(r'^( *```\w+)(?: title="([^"]*)")? host="([^"]*)"', re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its generated parts: mkdocs' hook."""

    def titled(opening: re.Match[str]) -> str:
        fence, title, host = opening.groups()
        return f'{fence} title="{f"{title}, on" if title else "On"} {host}"'

    return _HOST.sub(titled, _TEST_OPTIONS.sub(r"\1", expand(markdown)))


def expand(markdown: str) -> str:
    """Replace the marks of a page by what they stand for."""

    def replacement(mark: re.Match[str]) -> str:
        name, argument = mark.groups()
        return PARTS[name](argument) if argument else PARTS[name]()

    return _MARK.sub(replacement, markdown)


# ---- settings and command line -------------------------------------------------------------------


def settings() -> str:
    """Return the table of all settings."""
    from aserpc.settings import options

    rows = [(f"`{o.variable}`", f"`{o.name}`", f"`{o.default}`", o.unit, o.help) for o in options()]
    return _table(("variable", "in `[tool.aserpc]`", "default", "unit", "meaning"), rows)


def commands() -> str:
    """Return usage, arguments and options of every command."""
    from typer.main import get_command

    from aserpc.cli import app

    group: Any = get_command(app)
    parts = []
    for name, command in _leaves(group):
        context = command.make_context(f"aserpc {name}", [], resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"## aserpc {name}", _prose(command.help), f"```text\naserpc {name} {usage}\n```"]
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        rows = [(f"`{_one_line(what)}`", _prose(text)) for what, text in filter(None, records)]
        parts.append(_table(("", ""), rows))
    return "\n\n".join(parts)


def _leaves(group: Any) -> Iterable[tuple[str, Any]]:
    """Return commands, and those of groups under both words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {word}", leaf) for word, leaf in _leaves(command))
        else:
            yield name, command


def spawn_keys() -> str:
    """Return the table of what a spawn configuration may say."""
    from aserpc.spawn import SpawnConfig

    meanings: dict[str, str] = {}
    for line in _sections(SpawnConfig)["Parameters"].splitlines():
        if not line.startswith(" "):
            names = line.split(", ")
            meanings.update(dict.fromkeys(names, ""))
        else:
            meanings.update({name: f"{meanings[name]} {line.strip()}" for name in names})
    rows = [
        (f"`{f.name}`", f"`{f.type}`".replace(" | None", ""), _default(f), meanings[f.name])
        for f in dataclasses.fields(SpawnConfig)
        if f.name not in ("name", "source")
    ]
    return _table(("key", "type", "default", "meaning"), rows)


# ---- errors, messages, states --------------------------------------------------------------------


def errors() -> str:
    """Return the tree of errors and what each means."""
    from aserpc import errors as module

    tree = inspect.cleandoc(module.__doc__ or "").partition("::\n\n")[2]
    parts = [f"```text\n{inspect.cleandoc(tree)}\n```"]
    for name in module.__all__:
        cls = getattr(module, name)
        bases = ", ".join(f"`{base.__name__}`" for base in cls.__bases__)
        parts += [f"### {name}", f"*Is also:* {bases}", _docstring(cls)]
    return "\n\n".join(parts)


def messages() -> str:
    """Return every message with its fields, by who sends it."""
    from aserpc import messages as module

    directions = {
        "From a client to the broker": module.FROM_CLIENT,
        "From the broker to a client": module.TO_CLIENT,
        "From a worker or a manager to the broker": module.FROM_WORKER,
        "From the broker to a worker": module.TO_WORKER,
        "From the broker to a manager": module.TO_MANAGER,
    }
    parts, shown = [f"The protocol's version is {module.PROTOCOL_VERSION}."], set()
    for title, kinds in directions.items():
        again = ", ".join(f"`{kind.KIND}`" for kind in kinds if kind in shown)
        parts += [f"## {title}", f"Also {again}, as above." if again else ""]
        parts += [_message(kind) for kind in kinds if kind not in shown]
        shown.update(kinds)
    rows = [(f"`{kind}`", meaning) for kind, meaning in module.FAILURES.items()]
    parts += ["## Kinds of failure", 'What `error["kind"]` of an `ANSWER` says.']
    parts.append(_table(("kind", "meaning"), rows))
    return "\n\n".join(part for part in parts if part)


def _message(kind: Any) -> str:
    comments = _comments(kind)
    rows = [
        (f"`{f.name}`", f"`{f.type}`", _default(f), comments.get(f.name, ""))
        for f in dataclasses.fields(kind)
    ]
    table = _table(("field", "type", "default", ""), rows) if rows else "It has no fields."
    return f"### {kind.KIND}\n\n{_docstring(kind)}\n\n{table}"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return ""


def requests() -> str:
    """Return the states of a request at the broker."""
    from aserpc.broker.tables import JOB_TRANSITIONS, JobState

    return _states(JobState, JOB_TRANSITIONS, JobState.QUEUED)


def workers() -> str:
    """Return the states of a worker, as the broker sees it."""
    from aserpc.broker.tables import WORKER_TRANSITIONS, WorkerState

    return _states(WorkerState, WORKER_TRANSITIONS, WorkerState.LOADING)


def phases() -> str:
    """Return the phases of a worker, as it sees itself."""
    from aserpc.worker.state import TRANSITIONS, Phase

    return _states(Phase, TRANSITIONS, Phase.LOADING)


def processes() -> str:
    """Return the states of a spawned process."""
    from aserpc.manager.tables import PROCESS_TRANSITIONS, ProcessState

    return _states(ProcessState, PROCESS_TRANSITIONS, ProcessState.PENDING)


def health() -> str:
    """Return the states of a calculator, as its manager sees it."""
    from aserpc.manager.tables import HEALTH_TRANSITIONS, Health

    return _states(Health, HEALTH_TRANSITIONS, Health.ACTIVE)


def _states(states: type[Enum], transitions: Mapping[tuple[Any, Any], str], first: Enum) -> str:
    comments = _comments(states)
    last = [s for s in states if not any(before is s for before, _ in transitions)]
    arrows = [f"    [*] --> {first.name}"]
    arrows += [f"    {before.name} --> {after.name}" for before, after in transitions]
    arrows += [f"    {state.name} --> [*]" for state in last]
    diagram = "\n".join(["```mermaid", "stateDiagram-v2", *arrows, "```"])
    meanings = [(f"`{state.name}`", comments.get(state.name, "")) for state in states]
    moves = [(f"`{a.name}`", f"`{b.name}`", when) for (a, b), when in transitions.items()]
    return "\n\n".join(
        (diagram, _table(("state", "meaning"), meanings), _table(("from", "to", "when"), moves))
    )


# ---- Python --------------------------------------------------------------------------------------


def api(reference: str) -> str:
    """Return signature, docstring and public members of ``module:name``."""
    from importlib import import_module

    module, _, name = reference.partition(":")
    found = getattr(import_module(module), name)
    parts = [f"## {name}", _signature(name, found), _docstring(found)]
    if inspect.isclass(found):
        for member, value in vars(found).items():
            if member.startswith("_") or not inspect.getdoc(value):
                continue
            if isinstance(value, property):
                parts += [f"### {name}.{member}", _docstring(value)]
            elif inspect.isfunction(value):
                parts += [f"### {name}.{member}()", _signature(member, value), _docstring(value)]
    return "\n\n".join(parts)


def _signature(name: str, found: Any) -> str:
    signature = inspect.signature(found)
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    plain = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
    word = "await " if inspect.iscoroutinefunction(found) else ""
    return f"```text\n{word}{name}{plain}\n```"


def _docstring(found: Any) -> str:
    """Return a numpydoc docstring as Markdown."""
    sections = _sections(found)
    result = [sections.pop("")]
    for title, body in sections.items():
        shown = body.strip() if title == "Notes" else _definitions(body)
        result.append(f"**{title}**\n\n{shown}")
    return "\n\n".join(result)


def _sections(found: Any) -> dict[str, str]:
    """Return the parts of a numpydoc docstring by title; the first one has none."""
    text = _prose(inspect.getdoc(found))
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], [part.strip() for part in parts[0::2]], strict=True))


def _definitions(body: str) -> str:
    """Return numpydoc's list of names, types and texts as a Markdown list."""
    items: list[list[str]] = []
    for line in body.strip().splitlines():
        if line and not line.startswith(" "):
            items.append([line])
        else:
            items[-1].append(line.strip())
    lines = []
    for head, *text in items:
        names, _, kind = head.partition(" : ")
        shown = f"`{names}`" + (f" (*{kind}*)" if kind else "")
        lines.append(f"- {shown}: {' '.join(filter(None, text))}")
    return "\n".join(lines)


# ---- text ----------------------------------------------------------------------------------------


def changelog() -> str:
    """Return the changes."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[2]
    # Seen from the repository's root there, from docs/ here.
    return text.replace("](docs/", "](")


def _comments(cls: type) -> dict[str, str]:
    """Return the ``#:`` comments of a class's members."""
    found: dict[str, str] = {}
    lines: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        text = line.strip()
        member = re.match(r"(\w+)(?::| =)", text)
        if text.startswith("#:"):
            lines.append(text.removeprefix("#:").strip())
        elif member:
            found[member[1]] = _prose(" ".join(lines))
            lines = []
    return found


def _prose(text: str | None) -> str:
    """Return text with the double backticks of docstrings as Markdown's."""
    return re.sub(r"``(.+?)``", r"`\1`", text or "", flags=re.DOTALL)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(
        f"| {' | '.join(_one_line(cell).replace('|', chr(92) + '|') for cell in line)} |"
        for line in lines
    )


PARTS: dict[str, Callable[..., str]] = {
    part.__name__.replace("_", "-"): part
    for part in (
        settings, commands, spawn_keys, errors, messages, requests, workers, phases, processes,
        health, api, changelog,
    )
}  # fmt: skip
