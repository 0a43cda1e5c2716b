"""Keys with the real commands: a head node, a worker node and a laptop."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aserpc.security.keys import make_key
from support.managed import offers, table, write
from support.processes import CALCULATORS, Cli, Done, Process
from support.waiting import wait_for

EVERYWHERE = "tcp://127.0.0.1:*"

#: Asks for the energy of an atom at 2 Å, and prints it.
ASK = """
import sys
from ase import Atoms
from aserpc import RemoteCalculator
atoms = Atoms("H", [(2, 0, 0)])
atoms.calc = RemoteCalculator(sys.argv[1])
print(atoms.get_potential_energy())
"""

Machine = Callable[[str], Cli]


@pytest.fixture
def machine(cli: Cli, tmp_path: Path) -> Iterator[Machine]:
    """Makes machines with keys and sockets of their own; ``head`` is that of `cli`."""
    made = {"head": cli}
    with tempfile.TemporaryDirectory(prefix="a-") as folder:

        def make(name: str) -> Cli:
            if name not in made:
                sockets, cwd, logs = (Path(folder) / name / x for x in ("s", "cwd", "logs"))
                for path in (sockets, cwd, logs):
                    path.mkdir(parents=True, mode=0o700)
                made[name] = Cli(sockets, cwd, logs)
                made[name].env["ASERPC_KEYS_DIR"] = str(tmp_path / f"keys-{name}")
            return made[name]

        yield make
        for name, other in made.items():
            if name != "head":
                other.close()


def lines_to_type(output: str) -> list[list[str]]:
    """Return the commands that an output shows to be typed elsewhere."""
    shown = re.findall(r"^ {4}aserpc (keys allow \S+)$", output, re.MULTILINE)
    return [line.split() for line in shown]


def new(cli: Cli, role: str, name: str) -> list[str]:
    """Make a key; return the line to be typed elsewhere."""
    done = cli.run("keys", "new", "--role", role, "--name", name)
    assert done.code == 0, done.errors
    return lines_to_type(done.output)[0]


def introduce(head: Cli, other: Cli, role: str, name: str) -> None:
    """Exchange keys as a person does: by copying lines."""
    listed = other.run("keys", "list").output
    if "broker:" not in listed:
        (line,) = re.findall(r"^ {2}(broker:\S+)$", head.run("keys", "list").output, re.MULTILINE)
        assert other.run("keys", "allow", line).code == 0
    assert head.run(*new(other, role, name)).code == 0


def serve(head: Cli, *arguments: str) -> tuple[str, str]:
    """Start a broker on tcp; return its addresses."""
    return addresses(head.broker("--frontend", EVERYWHERE, "--backend", EVERYWHERE, *arguments))


def addresses(process: Process) -> tuple[str, str]:
    wait_for(lambda: "serving clients" in process.errors(), what=process.errors)
    found = re.search(r"serving clients at (\S+), workers at (\S+)", process.errors())
    assert found is not None
    return found[1], found[2]


def test_a_head_node_a_worker_node_and_a_laptop(machine: Machine) -> None:
    head, node, laptop = map(machine, ("head", "node", "laptop"))
    broker = new(head, "broker", "head")
    for other, role in ((node, "worker"), (laptop, "client")):
        assert other.run(*broker).code == 0
        assert head.run(*new(other, role, "me")).code == 0
    frontend, backend = serve(head)
    laptop.env["ASERPC_IPC_FRONTEND"] = frontend
    worker = node.loading_worker("Spring", "--broker", backend, name="spring")
    wait_for(lambda: worker.pid in head.ready(), what=worker.errors)
    asked = laptop.python(ASK, "spring")
    assert (asked.wait(), asked.output()) == (0, "2.0\n"), asked.errors()
    status = json.loads(laptop.run("status", "--json").output)
    assert status["workers"]["spring"]["idle"] == 1
    for text in (asked.errors(), worker.errors()):
        assert "without keys" not in text


def test_a_manager_elsewhere_starts_workers_with_its_key(machine: Machine) -> None:
    head, node = machine("head"), machine("node")
    new(head, "broker", "head")
    introduce(head, node, "manager", "node")
    _, backend = serve(head)
    write(node, table("spring", factory=f"{CALCULATORS}:Spring", idle_timeout=60.0))
    manager = node.start("manager", "--broker", backend)
    wait_for(lambda: offers(head) or not manager.runs(), what=manager.errors)
    asked = head.python(ASK, "spring")
    assert (asked.wait(40), asked.output()) == (0, "2.0\n"), asked.errors()
    head.run("keys", "revoke", "node")
    assert manager.wait(40) == 2
    assert "refuses the manager: its key is not allowed any more" in manager.errors()
    wait_for(lambda: not head.status()["processes"])


def test_up_serves_others_with_keys_and_needs_none_itself(machine: Machine) -> None:
    head, laptop = machine("head"), machine("laptop")
    new(head, "broker", "head")
    introduce(head, laptop, "client", "me")
    write(head, table("spring", factory=f"{CALCULATORS}:Spring", idle_timeout=60.0))
    up = head.start("up", "--frontend", EVERYWHERE, "--backend", EVERYWHERE)
    frontend, _ = addresses(up)
    asked = laptop.python(ASK, "spring", ASERPC_IPC_FRONTEND=frontend)
    assert (asked.wait(40), asked.output()) == (0, "2.0\n"), asked.errors()


def test_a_shared_home_needs_no_exchange(machine: Machine) -> None:
    head, node = machine("head"), machine("node")
    node.env["ASERPC_KEYS_DIR"] = head.env["ASERPC_KEYS_DIR"]
    new(head, "broker", "head")
    done = head.run("keys", "new", "--role", "worker")
    assert "it is allowed at once" in done.output
    assert not lines_to_type(done.output)
    _, backend = serve(head)
    worker = node.loading_worker("Spring", "--broker", backend, name="spring")
    wait_for(lambda: worker.pid in head.ready(), what=worker.errors)


def test_a_revoked_workers_process_ends_and_a_revoked_client_is_told(machine: Machine) -> None:
    head, node, laptop = map(machine, ("head", "node", "laptop"))
    new(head, "broker", "head")
    introduce(head, node, "worker", "node")
    introduce(head, laptop, "client", "me")
    frontend, backend = serve(head)
    worker = node.loading_worker("Spring", "--broker", backend, name="spring")
    wait_for(lambda: worker.pid in head.ready(), what=worker.errors)
    assert (
        head.run("keys", "revoke", "worker:node").output == "worker:node is not allowed any more\n"
    )
    assert worker.wait() == 1
    assert "its key is not allowed any more" in worker.errors()
    head.run("keys", "revoke", "me")

    def refused() -> Done | None:
        done = laptop.run("status", "--broker", frontend)
        return done if done.code else None

    done = wait_for(refused)  # the broker looks once a second
    assert done is not None
    assert done.code == 2
    assert re.search(r"^aserpc: .* does not allow the key client:me; .*keys allow", done.errors)
    assert len(done.errors.splitlines()) == 1


def test_who_may_shut_workers_down(machine: Machine) -> None:
    head, laptop = machine("head"), machine("laptop")
    new(head, "broker", "head")
    introduce(head, laptop, "client", "me")
    frontend, _ = serve(head)
    head.worker("Spring")
    laptop.env["ASERPC_IPC_FRONTEND"] = frontend
    done = laptop.run("shutdown", "--all")
    assert (done.code, len(done.errors.splitlines())) == (2, 1)
    assert "takes a key of the role 'admin'" in done.errors
    introduce(head, laptop, "admin", "me-too")
    assert "told 1 worker" in laptop.run("shutdown", "--all").output
    head.worker("Spring")
    assert "told 1 worker" in head.run("shutdown", "--all").output, (
        "on its machine no key is needed"
    )


# ---- what is said of mistakes --------------------------------------------------------------------


def complaint(cli: Cli, *arguments: str, code: int = 2) -> str:
    """Return the one line that a command says of a mistake."""
    done = cli.run(*arguments)
    assert (done.code, done.output) == (code, ""), done
    (line,) = done.errors.splitlines()
    assert line.startswith("aserpc: ")
    return line.removeprefix("aserpc: ")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:5555", "tcp://*:5555"])
@pytest.mark.parametrize("command", ["broker", "up"])
@pytest.mark.parametrize("side", ["--frontend", "--backend"])
def test_tcp_without_keys_is_refused(cli: Cli, command: str, side: str, address: str) -> None:
    write(cli, table("lj"))
    text = complaint(cli, command, side, address)
    assert text.startswith(f"{address} would be open to everybody who reaches it")
    assert "aserpc keys new --role broker" in text
    assert "--insecure" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("broker --frontend tcp://203.0.113.7:5555", "is no address of this machine"),
        ("broker --frontend tcp://no-such-host.invalid:5555", "nothing is known here of the host"),
        ("broker --frontend tcp://*:70000", "is out of range: 1 to 65535"),
        ("worker EMT --broker tcp://*:5556", "where a broker listens"),
        ("manager --broker tcp://0.0.0.0:5556", "where a broker listens"),
        ("status --broker tcp://*:5555", "where a broker listens"),
        ("status --broker tcp://[::1:5555", "is no tcp address"),
        ("keys new --role king", "'king' is no role; there are broker, client"),
        ("keys new --role client --name a:b", "'a:b' is no name of a key"),
        ("keys new --role broker", "there is a broker key already"),
        ("keys allow rubbish", "'rubbish' is no public key: ROLE:NAME:HEX"),
        (f"keys allow {'ab' * 32}", "say what the key is for: --role"),
        (f"keys allow king:x:{'ab' * 32}", "'king' is no role"),
        ("keys revoke nobody", "'nobody' is no key that is allowed; there are: client:me"),
        ("keys list --keys-dir /etc/passwd", "--keys-dir = '/etc/passwd' (command line) is a file"),
    ],
)
def test_a_mistake_is_told_in_a_line(cli: Cli, arguments: str, expected: str) -> None:
    write(cli, table("lj"))
    new(cli, "broker", "head")
    cli.run("keys", "allow", str(make_key("client", "me").public))
    assert expected in complaint(cli, *arguments.split())


def test_a_secret_key_on_the_command_line_is_refused_and_not_repeated(cli: Cli) -> None:
    key = make_key("client", "me")
    text = complaint(cli, "keys", "allow", key.text())
    assert text.startswith("that is a secret key")
    assert key.value.hex() not in text


def test_a_key_that_is_allowed_already_is_no_mistake(cli: Cli) -> None:
    key = str(make_key("client", "me").public)
    assert cli.run("keys", "allow", key).output == "client:me is allowed\n"
    done = cli.run("keys", "allow", key)
    assert (done.code, done.output) == (0, "client:me is allowed already\n")


def test_keys_that_others_can_read_are_not_used(cli: Cli) -> None:
    new(cli, "broker", "head")
    folder = Path(cli.env["ASERPC_KEYS_DIR"])
    (folder / "broker.secret").chmod(0o644)
    expected = f"chmod 600 {folder}/broker.secret"
    assert expected in complaint(cli, "broker", "--frontend", "tcp://127.0.0.1:5555")
    folder.chmod(0o755)
    assert f"chmod 700 {folder}" in complaint(cli, "keys", "list")


def test_a_client_without_keys_is_told_what_it_takes(machine: Machine) -> None:
    head, laptop = machine("head"), machine("laptop")
    new(head, "broker", "head")
    frontend, backend = serve(head)
    done = laptop.run("status", "--broker", frontend)
    assert done.code == 2
    assert "demands keys" in done.errors
    assert "aserpc keys new --role client" in done.errors
    worker = laptop.loading_worker("Spring", "--broker", backend, name="spring")
    wait_for(lambda: "aserpc keys new --role worker" in worker.errors(), what=worker.errors)


def test_a_worker_whose_key_is_not_allowed_ends_with_what_to_do(machine: Machine) -> None:
    head, node = machine("head"), machine("node")
    broker = new(head, "broker", "head")
    node.run(*broker)
    line = new(node, "worker", "node")
    _, backend = serve(head)
    worker = node.loading_worker("Spring", "--broker", backend, name="spring")
    assert worker.wait() == 2
    assert f"does not allow the key worker:node; on its machine: aserpc {' '.join(line)}" in (
        worker.errors()
    )
