"""Limits of the machine: file descriptors, a full disk, a folder that can't be written to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aserpc import list_calculators
from aserpc.errors import WorkerFailedError
from aserpc.socket_folder import full_path
from support.asking import energy_at
from support.managed import ask, table, up, write
from support.processes import Cli
from support.waiting import wait_for


def limited(limits: str) -> tuple[str, ...]:
    """Return the words before a command that runs under limits."""
    return ("sh", "-c", f'{limits}; exec "$@"', "sh")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# ---- file descriptors ----------------------------------------------------------------------------

#: With a quarter of these a crowd is let in before a broker on a busy machine sees that it is one.
FEW = 400


@contextlib.contextmanager
def crowd(path: Path) -> Iterator[list[socket.socket]]:
    """Connect to a broker as often as it lets us."""
    with contextlib.ExitStack() as stack:
        found: list[socket.socket] = []
        while len(found) < 500:
            mine = socket.socket(socket.AF_UNIX)
            try:
                mine.connect(str(path))
            except OSError:
                mine.close()
                if not path.exists():
                    break
            else:
                found.append(stack.enter_context(mine))
        yield found


def test_a_broker_without_descriptors_left_serves_those_who_are_there(cli: Cli) -> None:
    cli.prefix = limited(f"ulimit -n {FEW}")
    broker = cli.broker()
    cli.prefix = ()
    cli.worker("Spring")
    calculator = cli.calculator("spring")
    assert energy_at(calculator, 2) == 2
    frontend = cli.sockets / "frontend.ipc"
    with crowd(frontend) as others:
        assert 10 < len(others) < FEW
        assert not frontend.exists()
        assert descriptors(broker.pid) < FEW
        assert energy_at(calculator, 4) == 8, "on the connection that it has"
        done = cli.run("status")
        assert done.code == 2
        assert "it has as many connections as it may have" in done.errors
        late = cli.loading_worker("Spring", name="late")
        wait_for(lambda: "as many connections" in late.errors(), what=late.errors)
        assert broker.errors().count("no more connections") == 1
    wait_for(frontend.exists)
    wait_for(lambda: late.pid in cli.ready())
    assert broker.runs()


def test_a_broker_allows_itself_what_it_may(cli: Cli) -> None:
    cli.prefix = limited("ulimit -S -n 100")
    broker = cli.broker()
    cli.prefix = ()
    with crowd(cli.sockets / "frontend.ipc") as others:
        assert len(others) == 500
        wait_for(lambda: descriptors(broker.pid) > 500)
        assert list_calculators(cli.frontend) == {}


def test_a_broker_after_one_that_was_killed_while_it_was_full(cli: Cli) -> None:
    cli.prefix = limited(f"ulimit -n {FEW}")
    broker = cli.broker()
    frontend = cli.sockets / "frontend.ipc"
    with crowd(frontend):
        broker.kill()
        assert full_path(frontend).exists()
    cli.prefix = ()
    cli.broker()
    assert not full_path(frontend).exists()
    assert list_calculators(cli.frontend) == {}


@pytest.mark.parametrize("command", ["broker", "manager", "worker EMT", "status", "run EMT x.xyz"])
def test_too_few_descriptors_to_begin_with_are_one_clear_line(cli: Cli, command: str) -> None:
    write(cli, table("emt"))
    (cli.cwd / "x.xyz").write_text("1\n\nH 0 0 0\n")
    started = {}
    for number in (8, 10, 12, 14, 18):
        cli.prefix = limited(f"ulimit -n {number}")
        own = cli.sockets / str(number)
        started[number] = cli.start(*command.split(), ASERPC_IPC_DIR=str(own))
    for number, process in started.items():
        assert process.wait(40) in (1, 2), number
        text = process.errors()
        assert "Traceback" not in text, text
        told = [line for line in text.splitlines() if line.startswith("aserpc: ")]
        assert len(told) == 1, text
        few = ("ulimit -n", "Too many open files", "Broker not reachable")
        assert any(words in told[0] for words in few), text


MANY_CALLS = """
import resource, sys
from ase import Atoms
from aserpc import Client, RemoteCalculator, TooManyFilesError
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
highest = max(map(int, __import__("os").listdir("/dev/fd")))
atoms = Atoms("H", [(2, 0, 0)])
resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 3, hard))
for make in (RemoteCalculator, lambda name, broker: Client(broker).submit(name, atoms)):
    try:
        make("spring", sys.argv[1])
    except TooManyFilesError as error:
        print(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
print(RemoteCalculator("spring", sys.argv[1]).get_property("energy", atoms))
"""


def test_a_client_without_descriptors_is_told_and_can_be_used_later(cli: Cli) -> None:
    cli.broker()
    cli.worker("Spring")
    script = cli.python(MANY_CALLS, cli.frontend)
    assert script.wait() == 0, script.errors()
    *told, result = script.output().splitlines()
    assert result == "2.0"
    assert len(told) == 2
    assert all("ulimit -n" in line for line in told)


# ---- disks ---------------------------------------------------------------------------------------


@pytest.fixture
def disk(cli: Cli) -> Iterator[Path]:
    """The folder of the sockets, on a small disk of its own."""
    folder = cli.sockets
    options = "size=128k,mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a disk")
    yield folder
    cli.close()
    while not subprocess.run(["umount", "--lazy", folder], capture_output=True).returncode:
        pass


def fill(folder: Path) -> None:
    """Leave no room on a disk."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def read_only(folder: Path) -> None:
    """Let nobody write to a disk any more, except into files that are open."""
    subprocess.run(["mount", "--bind", str(folder), str(folder)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)


def test_a_full_disk_does_not_keep_a_service_from_working(cli: Cli, disk: Path) -> None:
    fill(disk)
    broker = cli.broker()
    assert "No space left" in broker.errors()
    worker = cli.worker("Spring")
    assert energy_at(cli.calculator("spring"), 2) == 2
    wait_for(lambda: "cannot save the list of workers" in broker.errors())
    (disk / "filler").unlink()
    wait_for(lambda: (disk / "workers.msgpack").exists())
    assert broker.errors().count("cannot save the list of workers") == 1
    assert not list(disk.glob("*.msgpack.*")), "no half-written files"
    broker.kill()
    cli.broker()
    wait_for(lambda: worker.pid in cli.ready())


def test_a_manager_starts_workers_though_its_disk_is_full(cli: Cli, disk: Path) -> None:
    fill(disk)
    process = up(cli, table("lj"))
    assert ask(cli, "lj")["pid"] in cli.ready()
    wait_for(lambda: "cannot note the workers" in process.errors())


def test_a_disk_that_can_only_be_read_is_one_clear_line(cli: Cli, disk: Path) -> None:
    read_only(disk)
    done = cli.run("broker")
    assert done.code == 2
    assert done.errors == (
        f"aserpc: cannot write to the folder of the sockets, {disk}: Read-only file system\n"
    )


def test_those_who_wait_are_told_that_a_log_can_t_be_written(cli: Cli, disk: Path) -> None:
    process = up(cli, table("lj"))
    read_only(disk)
    with pytest.raises(WorkerFailedError, match=rf"Read-only file system: '?{disk}/logs"):
        ask(cli, "lj")
    assert process.runs()
    assert "Traceback" not in process.errors()


def test_a_worker_whose_folder_can_t_be_made_says_so(cli: Cli, disk: Path) -> None:
    cli.broker()
    read_only(disk)
    done = cli.run("worker", "EMT")
    assert done.code == 2
    (line,) = done.errors.splitlines()
    assert "Read-only file system" in line
    assert "--workdir" in line


# ---- what others left ----------------------------------------------------------------------------


def test_broken_files_of_those_before_are_no_obstacle(cli: Cli) -> None:
    (cli.sockets / "workers.msgpack").write_bytes(b"\x91\x92\xcd\xff\xff\xa3emt")
    (cli.sockets / "broker.json").write_bytes(b'{"host": 7, "pid": Infinity}')
    for number, text in enumerate(("[]", "{", '{"a": 1}', '{"a": {"name": "lj"}}')):
        (cli.sockets / f"spawned-{400_000_000 + number}.json").write_text(text)
    assert cli.run("status").code == 2
    process = up(cli, table("lj"))
    assert process.errors().count("can't be read") == 1
    assert process.errors().count("cannot read which workers were started") == 4
    assert ask(cli, "lj")["pid"]
