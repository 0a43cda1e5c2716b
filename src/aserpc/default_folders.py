"""Where sockets and keys are, unless somebody says so."""

from __future__ import annotations

import os
import stat

#: Name of the sockets' folder.
FOLDER = ".aserpc"

#: The folder of the keys.
KEYS_FOLDER = "~/.config/aserpc/keys"


def upward(folder: str) -> list[str]:
    """Return `folder` and all folders above it; strings, because this runs for every client."""
    folders = [folder]
    while (parent := os.path.dirname(folder)) != folder:  # noqa: PTH120
        folders.append(parent)
        folder = parent
    return folders


def default_folder(folders: list[str]) -> str:
    """Return the folder of the sockets for somebody in the first of `folders`."""
    home = os.path.expanduser("~")  # noqa: PTH111
    above_home: set[str] = set()
    if home != "~":
        for path in (home, os.path.realpath(home)):
            above_home.update(upward(os.path.dirname(path)))  # noqa: PTH120
    beside = ""
    for folder in folders:
        path = os.path.join(folder, FOLDER)  # noqa: PTH118
        if folder not in above_home and _is_mine(path):
            return path
        if not beside and os.path.isfile(os.path.join(folder, "pyproject.toml")):  # noqa: PTH113, PTH118
            beside = folder
    return os.path.join(beside or folders[0], FOLDER)  # noqa: PTH118


def default_keys_folder(ipc_dir: str) -> str:
    """Return the folder of the keys."""
    path = os.path.expanduser(KEYS_FOLDER)  # noqa: PTH111
    # Whoever has no home may still have keys.
    return path if os.path.isabs(path) else os.path.join(ipc_dir, "keys")  # noqa: PTH117, PTH118


def _is_mine(path: str) -> bool:
    """Whether nobody else made this folder, or the link to it, and nobody else can look inside."""
    try:
        link, status = os.lstat(path), os.stat(path)  # noqa: PTH116
    except OSError:
        return False
    # A folder made in one with the set-group-id bit has that bit too; it gives nobody access.
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_mode & 0o777 == 0o700
        and status.st_uid == link.st_uid == os.getuid()
    )
