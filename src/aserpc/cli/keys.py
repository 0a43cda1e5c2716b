"""The commands for keys: make one, allow others', see which there are, allow one no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aserpc.cli.options import setting
from aserpc.settings import load_settings

if TYPE_CHECKING:
    from aserpc.security.folder import KeyFolder

#: Joined to the others by `aserpc.cli.app`.
commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Keys for connections between machines: by tcp a broker takes none without.",
)

Folder = Annotated[str | None, setting("keys_dir", "--keys-dir")]
_ROLES = "broker, client, worker, manager or admin"


def _folder(path: str | None) -> KeyFolder:
    from aserpc.security.folder import KeyFolder

    return KeyFolder(load_settings({"keys_dir": path}).keys_dir)


@commands.command()
def new(
    role: Annotated[str, typer.Option(help=f"What it is for: {_ROLES}")],
    name: Annotated[
        str | None, typer.Option(help="Whose it is [default: you and this host]")
    ] = None,
    keys_dir: Folder = None,
) -> None:
    """Make a key of your own; the secret half stays in its folder."""
    from aserpc.security.keys import check_role, default_name

    check_role(role)
    folder = _folder(keys_dir)
    key = folder.make(role, name or default_name(role))
    print(f"made the {role} key of {key.public.name}: {folder.secret_path(role)}")
    if key.public in folder.allowed():
        print("it is allowed at once: the broker's key is in the same folder")
        return
    if role == "broker":
        print(f"now, wherever somebody connects to it:\n\n    aserpc keys allow {key.public}\n")
        return
    print(f"now, on the broker's machine:\n\n    aserpc keys allow {key.public}\n")
    if not folder.brokers():
        print("and here, with the broker's key, which `aserpc keys list` shows there:\n")
        print("    aserpc keys allow broker:NAME:HEX\n")


@commands.command()
def allow(
    key: Annotated[str, typer.Argument(help="The public key, as new and list print it")],
    role: Annotated[str | None, typer.Option(help=f"What it is for: {_ROLES}")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called here")] = None,
    keys_dir: Folder = None,
) -> None:
    """Allow a public key: to connect to your broker, or a broker's, to connect to it.

    A broker that serves takes notice within a second.
    """
    from aserpc.security.keys import parse_public

    public = parse_public(key, role, name)
    is_new = _folder(keys_dir).allow(public)
    print(f"{public.label} is allowed{'' if is_new else ' already'}")


@commands.command(name="list")
def list_(keys_dir: Folder = None) -> None:
    """List your own keys, and those that are allowed."""
    folder = _folder(keys_dir)
    own, allowed = [key.public for key in folder.own()], folder.allowed()
    print(f"keys in {folder.path}")
    # No table: whole lines can be copied.
    for title, keys in (("your own", own), ("allowed", allowed)):
        print(f"{title}:{'' if keys else ' none'}")
        for key in keys:
            print(f"  {key}")


@commands.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The public key, its name, or ROLE:NAME")],
    keys_dir: Folder = None,
) -> None:
    """Allow a key no longer: its connections get nothing more, within a second."""
    revoked = _folder(keys_dir).revoke(key)
    print(f"{revoked.label} is not allowed any more")
