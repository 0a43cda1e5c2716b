"""How a command ends: its exit code, and one line for what went wrong."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from aserpc.cli.console import complain
from aserpc.errors import (
    AddressError,
    AserpcError,
    BrokerUnreachableError,
    KeysError,
    NotAllowedError,
    NoWorkersError,
    RegistryError,
    SettingsError,
)

#: A person's mistakes: exit code 2, as for wrong options.
MISTAKES = (
    SettingsError,
    RegistryError,
    AddressError,
    KeysError,
    NotAllowedError,
    BrokerUnreachableError,
    NoWorkersError,
)

#: What the machine has no more of; nobody needs to see where in the program that came up.
LACKS = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM}

#: What wrong options raise; typer has it from click, or of its own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(app: Callable[..., int]) -> int:
    """Run the command line; return its exit code."""
    try:
        return app(standalone_mode=False)
    except UsageError as error:
        return _explain_usage(error)
    except MISTAKES as error:
        complain(str(error))
        return 2
    except AserpcError as error:
        complain(str(error))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be said to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in LACKS:
            raise
        complain(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))
        return 1


def _explain_usage(error: Any) -> int:
    text: str = error.format_message()
    if "\n" in text:
        error.show()  # the whole help, where nothing at all was given
    else:
        command = error.ctx.command_path if error.ctx is not None else "aserpc"
        complain(f"{text.rstrip('.')}{'' if text.endswith('?') else '.'} See: {command} --help")
    return int(error.exit_code)
