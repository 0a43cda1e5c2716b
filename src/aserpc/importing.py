"""Import what a person names: ``"module:attribute"`` or ``"file.py:attribute"``.

Everything that goes wrong is a `RegistryError` of one line, with the place in the person's file.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import traceback
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

from aserpc.errors import RegistryError
from aserpc.remote_error import message_of


def is_file(module: str) -> bool:
    """Whether the first part of a reference names a file."""
    return module.endswith(".py")


def split_reference(reference: str, what: str = "") -> tuple[str, str]:
    """Split ``"module:attribute"``.

    Parameters
    ----------
    reference
        What a person wrote.
    what
        What it is, for the error.
    """
    module, separator, attribute = reference.rpartition(":")
    names = attribute.split(".")
    good = separator and all(name.isidentifier() for name in names)
    if good and (is_file(module) or all(name.isidentifier() for name in module.split("."))):
        return module, attribute
    if is_file(reference):
        hint = f"write {reference}:NAME, with a name from that file"
    elif os.sep in reference:
        hint = "write file.py:NAME for a file"
    elif not separator and "." in reference:
        hint = f"{':'.join(reference.rsplit('.', 1))!r} is probably meant"
    else:
        hint = "write module:NAME or file.py:NAME"
    msg = f"{what or 'the reference'} {reference!r} names nothing to import; {hint}"
    raise RegistryError(msg)


def check_reference(reference: str, base: Path) -> None:
    """Refuse a reference to a file or package that is not there; nothing is imported for it."""
    name, _ = split_reference(reference)
    if is_file(name):
        path = base / Path(name).expanduser()
        if not path.is_file():
            msg = f"no file {path}"
            raise RegistryError(msg)
        return
    top = name.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        msg = f"no module {top!r}{_advice(top)}"
        raise RegistryError(msg)


def make_importable(folder: Path) -> None:
    """Let modules of `folder` be imported, also after a change of the current folder."""
    path = str(folder.absolute())
    if path not in sys.path:
        sys.path.insert(0, path)


def import_reference(reference: str, base: Path | None = None, what: str = "") -> Any:
    """Import what a reference names.

    Parameters
    ----------
    reference
        ``"module:attribute"`` or ``"file.py:attribute"``; an attribute may have dots in it.
    base
        Where a relative file is looked for; the current folder by default.
    what
        What the reference is, for the error.
    """
    name, attribute = split_reference(reference, what)
    importlib.invalidate_caches()
    if is_file(name):
        module = import_file((base or Path.cwd()) / Path(name).expanduser())
    else:
        module = _import_module(name)
    value: Any = module
    owner = name
    for part in attribute.split("."):
        value = _attribute(value, part, owner)
        owner = f"{name}:{part}" if owner == name else f"{owner}.{part}"
    return value


def _attribute(value: Any, part: str, owner: str) -> Any:
    try:
        return getattr(value, part)
    except AttributeError:
        names = {name.casefold(): name for name in dir(value)}
        close = difflib.get_close_matches(part.casefold(), names, n=1)
        hint = f"; {names[close[0]]} is probably meant" if close else ""
        msg = f"{owner} has no {part!r}{hint}"
        raise RegistryError(msg) from None
    except (Exception, SystemExit) as error:
        # A module's __getattr__ may import what it hands out.
        msg = f"importing {part} from {owner} failed: {explain(error)}"
        raise RegistryError(msg) from error


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            msg = f"no module {missing!r}{_advice(missing)}"
        else:
            msg = f"importing {name} failed: {explain(error)}"
        raise RegistryError(msg) from error


def import_file(path: Path) -> ModuleType:
    """Import a file under its stem, with its folder importable.

    The module is also a package of its folder, so that ``from .sibling import x`` works.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100  a link's folder is the link's own
    if not path.is_file():
        msg = f"no file {path}"
        raise RegistryError(msg)
    name = path.stem.replace(".", "_")
    loaded = sys.modules.get(name)
    if loaded is not None and not _is_from(loaded, path):
        # Never in the place of another module: of a second registry.py, or of Python's own.
        name = f"{name}_{zlib.crc32(os.fsencode(path)):08x}"
        loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    make_importable(path.parent)
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)]
    )
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        msg = f"{path.name} failed: {explain(error, path)}"
        del sys.modules[name]
        raise RegistryError(msg) from error
    return module


def _is_from(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).exists() and path.samefile(file)


def explain(error: BaseException, file: Path | None = None) -> str:
    """Put an exception into one line: where, its type, its message, and what to do.

    Parameters
    ----------
    error
        An exception that somebody else's code raised.
    file
        The person's own file; the place is the last line in it rather than deep in a library.
    """
    message = " ".join(message_of(error).split())
    if isinstance(error, SystemExit):
        text = f"it ended with sys.exit({error.code!r})"
    elif isinstance(error, SyntaxError) and error.filename:
        name = Path(error.filename).name
        return f"{name}:{error.lineno}: {type(error).__name__}: {error.msg}"
    else:
        text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        text += _advice(error.name)
    text = text if len(text) <= 1000 else f"{text[:1000]}..."
    place = _place(error, file)
    return f"{place}: {text}" if place else text


def _place(error: BaseException, file: Path | None) -> str:
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__, limit=-50)
        if not frame.filename.startswith("<frozen ") and frame.filename not in _OURS
    ]
    if file is not None:
        frames = [frame for frame in frames if frame[0] == str(file)] or frames
    return f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else ""


# Frames of ours say nothing about a mistake in somebody's registry or calculator.
_OURS = {
    str(Path(__file__).with_name(name)) for name in ("importing.py", "entries.py", "registry.py")
} | {str(Path(__file__).parent / "worker" / name) for name in ("computing.py", "probing.py")}


def _advice(missing: str) -> str:
    """Say what to do about a module that is missing."""
    top = missing.partition(".")[0]
    hiding = getattr(sys.modules.get(top), "__file__", None) if top != missing else None
    if hiding and Path(hiding).parent == Path.cwd():
        return f"; {hiding} hides the installed package {top}, rename it"
    return "; install it into this worker's environment, or start in the folder that has it"
