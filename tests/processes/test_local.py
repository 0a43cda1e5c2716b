"""``aserpc.local``: a broker and workers for a script, and nothing left of them."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import write
from ase.optimize import BFGS

import aserpc
from aserpc import LocalClient, SpawnConfig
from aserpc.errors import BrokerStoppedError, RegistryError, SettingsError, WorkerFailedError
from aserpc.local_client import _check
from aserpc.socket_folder import full_path
from support import calculators
from support.asking import atom
from support.calculators import Spring
from support.processes import TESTS, Cli, Process
from support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("leaves_nothing")


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files, which is empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="a-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        left = Path(folder).iterdir
        wait_for(lambda: not list(left()), what=lambda: str(list(left())))


def energy(atoms: Any, calculator: Any) -> float:
    local = atoms.copy()
    local.calc = calculator
    return float(local.get_potential_energy())


# ---- what is served ------------------------------------------------------------------------------


def test_serves_classes_and_references_as_calculators_and_to_clients() -> None:
    served = {"emt": EMT, "lj": "ase.calculators.lj:LennardJones"}
    with aserpc.local(served, workers=2) as client:
        slab = bulk("Cu").repeat(2)
        slab.rattle(0.1)
        here = slab.copy()
        slab.calc, here.calc = client.calculator("emt"), EMT()
        for atoms in (slab, here):
            BFGS(atoms, logfile=None).run(fmax=0.05, steps=5)
        assert (slab.positions == here.positions).all()
        found = client.evaluate("lj", [molecule("CO"), bulk("Cu")])
        assert [a.get_potential_energy() for a in found] == [
            energy(molecule("CO"), LennardJones()),
            energy(bulk("Cu"), LennardJones()),
        ]


def test_so_many_workers_serve_each_calculator(tmp_path: Path) -> None:
    gate = functools.partial(calculators.Gate, str(tmp_path))
    with aserpc.local({"gate": gate, "spring": Spring}, workers={"gate": 2}) as client:
        futures = [client.submit("gate", atom(x)) for x in range(2)]
        wait_for(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        status = aserpc.broker_status(client.broker)["workers"]
        assert {name: counts["total"] for name, counts in status.items()} == {
            "gate": 2,
            "spring": 1,
        }
        (tmp_path / "go").touch()
        pids = {future.result(20).provenance["pid"] for future in futures}
        assert len(pids) == 2
        assert os.getpid() not in pids


def test_every_way_to_say_what_is_served() -> None:
    served = {
        "registered": "EMT",
        "partial": functools.partial(LennardJones, epsilon=0.5),
        "partial of partial": functools.partial(
            functools.partial(LennardJones, epsilon=0.1), epsilon=0.5
        ),
        "table": {"factory": LennardJones, "kwargs": {"epsilon": 0.5}},
        "written table": {"factory": "ase.calculators.lj:LennardJones", "kwargs": {"sigma": 2.0}},
        "file": f"{calculators.__file__}:Spring",
        "own module": Spring,
        "configuration": SpawnConfig("any", factory="ase.calculators.emt:EMT", env={"A": "1"}),
    }
    copper = bulk("Cu")
    local = {
        **dict.fromkeys(("registered", "configuration"), EMT()),
        **dict.fromkeys(("partial", "partial of partial", "table"), LennardJones(epsilon=0.5)),
        "written table": LennardJones(sigma=2.0),
        **dict.fromkeys(("file", "own module"), Spring()),
    }
    with aserpc.local(served) as client:
        futures = {name: client.submit(name, copper, ["energy"]) for name in served}
        for name, future in futures.items():
            assert future.result(40)["energy"] == energy(copper, local[name]), name


def test_names_alone_serve_what_is_registered() -> None:
    with aserpc.local(["EMT"]) as client:
        assert client.calculator("EMT").get_property("energy", bulk("Cu")) == energy(
            bulk("Cu"), EMT()
        )


@pytest.mark.parametrize(
    ("served", "said"),
    [
        ({"a": lambda: EMT()}, "'a': its factory .* in no file .* functools.partial"),
        ({"a": EMT()}, "'a' is .*EMT.*; give what makes it: its class"),
        ({"a": "nothing"}, "no calculator 'nothing' installed"),
        ({"a": "no.such.module:EMT"}, "no module 'no'"),
        ({"a": {"factory": EMT, "workers": 2}}, "'a' has the unknown key 'workers'"),
        ({"a": functools.partial(EMT, x=object())}, "'a' has <object .* in its kwargs"),
        ({}, "no calculator is given"),
        (None, "calculators is None"),
        (EMT, "calculators is <class .*; give {name: factory}"),
    ],
)
def test_what_no_worker_could_make_is_said_at_once(served: Any, said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        aserpc.local(served)


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, {"emt": 0}])
def test_a_number_of_workers_that_is_none(workers: Any) -> None:
    with pytest.raises(ValueError, match="workers is a number of processes"):
        aserpc.local({"emt": EMT}, workers)


def test_a_number_of_workers_of_what_is_not_served() -> None:
    with pytest.raises(ValueError, match="workers has a number for 'emd', which is not served"):
        aserpc.local({"emt": EMT}, workers={"emd": 4})


def test_a_calculator_that_cannot_be_made_is_told_to_whoever_asks() -> None:
    with aserpc.local({"it": calculators.Unmakable, "spring": Spring}) as client:
        for _ in range(2):
            with pytest.raises(WorkerFailedError, match="the model file is missing"):
                client.submit("it", atom(1)).result(40)
        assert client.submit("spring", atom(2)).result(20)["energy"] == 2


def test_a_worker_that_is_killed_is_replaced() -> None:
    with aserpc.local({"spring": Spring}) as client:
        pid = client.submit("spring", atom(2)).result(20).provenance["pid"]
        os.kill(pid, signal.SIGKILL)
        again = client.submit("spring", atom(2)).result(20)
        assert again["energy"] == 2
        assert again.provenance["pid"] != pid


# ---- its end -------------------------------------------------------------------------------------


def test_without_a_block_it_lasts_until_it_is_closed() -> None:
    client = aserpc.local({"spring": Spring})
    assert isinstance(client, LocalClient)
    assert client.submit("spring", atom(2)).result(20)["energy"] == 2
    client.close()
    client.close()


def test_what_is_asked_after_the_end_fails_at_once() -> None:
    copper = bulk("Cu")
    with aserpc.local({"spring": Spring}) as client:
        copper.calc = client.calculator("spring", retries=3)
        copper.get_potential_energy()
        copies = [copper.calc, pickle.loads(pickle.dumps(copper.calc))]
    assert copper.get_potential_energy() == energy(copper, Spring()), "it is known"
    for calculator in copies:
        with pytest.raises(BrokerStoppedError, match=r"the block of aserpc\.local was left"):
            calculator.get_property("energy", bulk("Ni"))
    with pytest.raises(BrokerStoppedError, match="its client closed"):
        client.submit("spring", copper)


def test_a_bad_setting_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASERPC_WORKER_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="ASERPC_WORKER_TIMEOUT"):
        aserpc.local({"spring": Spring})


def test_a_pickled_copy_is_a_client_of_the_same_workers() -> None:
    with aserpc.local({"spring": Spring}, timeout=9000) as client:
        with pickle.loads(pickle.dumps(client)) as copy:
            assert not isinstance(copy, LocalClient)
            assert copy.timeout == 9000
            assert copy.submit("spring", atom(2)).result(20)["energy"] == 2
        assert client.submit("spring", atom(4)).result(20)["energy"] == 8, "it goes on"


def test_a_fork_that_goes_on_does_not_keep_the_workers(capfd: pytest.CaptureFixture[str]) -> None:
    # It has the pipe by whose end the service knows that it is to end.
    context = multiprocessing.get_context("fork")
    with aserpc.local({"emt": EMT}) as client:
        process = client._service._process
        fork = context.Process(target=threading.Event().wait, daemon=True)
        fork.start()
    try:
        assert process.returncode == 0, "it was not killed"
    finally:
        fork.kill()
        fork.join()
    assert capfd.readouterr().err == ""


def test_a_private_broker_that_is_full_has_not_ended(tmp_path: Path) -> None:
    socket = tmp_path / "frontend.ipc"
    full_path(socket).touch()
    _check(f"ipc://{socket}")
    full_path(socket).unlink()
    with pytest.raises(BrokerStoppedError, match="has ended"):
        _check(f"ipc://{socket}")


def test_an_interrupted_block_ends_what_it_computes(tmp_path: Path) -> None:
    gate = functools.partial(calculators.Gate, str(tmp_path))

    def interrupted() -> None:
        with aserpc.local({"gate": gate}) as client:
            client.submit("gate", atom(1))
            wait_for(lambda: list(tmp_path.glob("started-*")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (started,) = tmp_path.glob("started-*")
    assert not is_alive(int(started.name.split("-")[1]))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SCRIPT = """
import functools, json, os, signal, sys
from pathlib import Path
import aserpc
from ase import Atoms
from support.calculators import Gate
from support.waiting import wait_for

if __name__ == "__main__":
    gate = functools.partial(Gate, sys.argv[1])
    client = aserpc.local({"gate": gate}, workers=2)
    with client:
        futures = [client.submit("gate", Atoms("H")) for _ in range(4)]
        wait_for(Path(sys.argv[1], "then").exists)
        THEN
        for future in futures:
            future.result()
"""


@pytest.fixture
def script(cli: Cli, tmp_path: Path, folders: Path) -> Any:
    """Starts a script with two workers that compute; gives its process and theirs."""

    def start(then: str = "") -> tuple[Process, set[int]]:
        path = cli.cwd / "script.py"
        path.write_text(SCRIPT.replace("THEN", then))
        variables = {"TMPDIR": str(folders), "PYTHONPATH": TESTS}
        # Not as a source: a script is a file.
        process = cli._start((str(path), str(tmp_path)), variables, "script")
        wait_for(lambda: len(list(tmp_path.glob("started-*"))) == 2, what=process.errors)
        (folder,) = folders.glob("aserpc-*")
        spawned = json.loads(next(folder.glob("spawned-*.json")).read_text())
        service = int(re.findall(r"\d+", next(folder.glob("spawned-*.json")).name)[0])
        workers = {entry["handle"]["pid"] for entry in spawned.values()}
        assert len(workers) == 2
        assert all(map(is_alive, (service, *workers)))
        (tmp_path / "then").touch()
        return process, {service, *workers}

    return start


def test_nothing_is_left_of_a_script_that_is_killed(script: Any) -> None:
    process, others = script()
    process.signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, others)))


def test_nothing_is_left_of_a_script_that_is_killed_but_for_a_fork_of_it(
    script: Any, tmp_path: Path
) -> None:
    process, others = script(f"if os.fork() == 0: open('{tmp_path}/fork', 'w'); signal.pause()")
    wait_for((tmp_path / "fork").exists)
    process.signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, others)))
    process.kill()  # the fork


def test_nothing_is_left_of_a_command_that_is_killed(
    cli: Cli, tmp_path: Path, folders: Path
) -> None:
    (cli.cwd / "gate.py").write_text(
        f"from support.calculators import Gate\ndef make():\n    return Gate({str(tmp_path)!r})\n"
    )
    write(cli.cwd / "in.xyz", [bulk("Cu")] * 4)
    process = cli.start(
        *("run", "gate:make", "in.xyz", "--workers", "2"), TMPDIR=str(folders), PYTHONPATH=TESTS
    )
    wait_for(lambda: len(list(tmp_path.glob("started-*"))) == 2, what=process.errors)
    workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("started-*")]
    assert all(map(is_alive, workers))
    process.signal(signal.SIGKILL)
    wait_for(lambda: not any(map(is_alive, workers)))


@pytest.mark.parametrize("end", ["sys.exit(3)", "os._exit(3)", "1 / 0", "os.abort()"])
def test_nothing_is_left_of_a_script_that_ends_in_the_block(script: Any, end: str) -> None:
    process, others = script(end)
    assert process.wait() != 0
    wait_for(lambda: not any(map(is_alive, others)))


def test_nothing_is_left_where_the_private_broker_is_killed(script: Any, tmp_path: Path) -> None:
    process, others = script("os.kill(client._service._process.pid, signal.SIGKILL); sys.exit(3)")
    assert process.wait() == 3, process.errors()
    wait_for(lambda: not any(map(is_alive, others)))


def test_a_script_that_serves_its_own_class(cli: Cli, folders: Path) -> None:
    path = cli.cwd / "own.py"
    path.write_text(
        "import aserpc\n"
        "from ase.build import bulk\n"
        "from ase.calculators.emt import EMT\n"
        "class Mine(EMT):\n"
        "    pass\n"
        "if __name__ == '__main__':\n"
        "    with aserpc.local({'mine': Mine}) as client:\n"
        "        print(client.submit('mine', bulk('Cu')).result()['energy'])\n"
    )
    process = cli._start((str(path),), {"TMPDIR": str(folders)}, "script")
    assert process.wait() == 0, process.errors()
    assert float(process.output()) == energy(bulk("Cu"), EMT())


def test_a_class_of_a_script_on_standard_input_is_in_no_file(folders: Path) -> None:
    script = (
        "import aserpc\n"
        "from ase.calculators.emt import EMT\n"
        "class Mine(EMT):\n"
        "    pass\n"
        "aserpc.local({'mine': Mine})\n"
    )
    done = subprocess.run(
        [sys.executable, "-"],
        input=script,
        env={**os.environ, "TMPDIR": str(folders)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert "is in no file that a worker could import it from" in done.stderr


def test_a_script_without_a_main_part_is_told_so(cli: Cli, folders: Path) -> None:
    path = cli.cwd / "own.py"
    path.write_text(
        "import aserpc\n"
        "from ase.build import bulk\n"
        "from ase.calculators.emt import EMT\n"
        "class Mine(EMT):\n"
        "    pass\n"
        "with aserpc.local({'mine': Mine}) as client:\n"
        "    client.submit('mine', bulk('Cu')).result()\n"
    )
    process = cli._start((str(path),), {"TMPDIR": str(folders)}, "script")
    assert process.wait() == 1
    assert 'put what the script does under `if __name__ == "__main__":`' in process.errors()


def test_two_at_a_time_do_not_meet() -> None:
    with aserpc.local({"it": EMT}) as one, aserpc.local({"it": LennardJones}) as other:
        copper = bulk("Cu")
        assert one.submit("it", copper).result(20)["energy"] == energy(copper, EMT())
        assert other.submit("it", copper).result(20)["energy"] == energy(copper, LennardJones())
    assert not [t for t in threading.enumerate() if t.name == "aserpc client"]
