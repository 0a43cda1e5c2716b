"""What the commands print, which flags they take, and what they say of mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ase import Atoms

from support.processes import Cli
from support.waiting import InThread, wait_for

# ---- questions to the broker ---------------------------------------------------------------------


def test_status_list_and_shutdown_of_what_runs(cli: Cli) -> None:
    cli.broker()
    odd = cli.worker("Spring", name="[red]odd[/red] name")
    spring = cli.worker("Spring", name="a-" + "very-" * 40 + "long-name")
    pair = [cli.worker("Spring", name="pair") for _ in range(2)]
    starts = {
        name: cli.start(*arguments)
        for name, arguments in {
            "status": ("status",),
            "status of": ("status", "--broker", cli.frontend),
            "json": ("status", "--json"),
            "running": ("list", "--running"),
            "list of": ("list", "--broker", cli.frontend),
        }.items()
    }
    assert [process.wait() for process in starts.values()] == [0] * 5
    printed = {name: process.output() for name, process in starts.items()}

    assert printed["status"] == printed["status of"]
    assert printed["running"] == printed["list of"]
    for name in ("status", "running"):
        text = printed[name]
        assert "\x1b" not in text, "no colour"
        assert len(text.splitlines()) == 4, "no wrapping"
        assert "[red]odd[/red] name" in text
        assert "very-" * 40 in text
        (line,) = (line for line in text.splitlines() if line.startswith("pair"))
        assert line.split()[1] == "2"
    status = json.loads(printed["json"])
    assert status["workers"]["pair"] == {"total": 2, "idle": 2, "busy": 0, "loading": 0}

    done = cli.run("shutdown", "--workers", "pair")
    assert (done.code, done.errors) == (0, "")
    assert "2 workers" in done.output
    assert [worker.wait() for worker in pair] == [0, 0]
    assert odd.runs()
    done = cli.run("shutdown", "--broker", cli.frontend, "--all")
    assert done.code == 0
    assert [worker.wait() for worker in (odd, spring)] == [0, 0]


def test_a_shut_down_worker_finishes_what_it_computes(cli: Cli, tmp_path: Path) -> None:
    cli.broker()
    worker = cli.worker("Gate", "--kwargs", json.dumps({"folder": str(tmp_path)}))
    calculator = cli.calculator("gate")
    call = InThread(lambda: calculator.get_property("energy", Atoms("H", [(2, 0, 0)])))
    wait_for(lambda: list(tmp_path.glob("started-*")))
    assert cli.run("shutdown", "--workers", "gate").code == 0
    (tmp_path / "go").touch()
    assert call.result() == 2
    assert worker.wait() == 0


def test_list_shows_what_can_be_started(cli: Cli) -> None:
    (cli.cwd / "mine.py").write_text(
        "from ase.calculators.emt import EMT\n"
        "CALCULATORS = {'mine': EMT, '[b]': {'factory': 'ase.calculators.lj:LennardJones'}}\n"
    )
    done = cli.run("list")
    assert done.code == 0
    assert {"EMT", "LJ", "TIP3P"} <= {line.split()[0] for line in done.output.splitlines()}
    done = cli.run("list", "--registry", "mine.py:CALCULATORS")
    assert done.code == 0
    assert [line.split()[0] for line in done.output.splitlines()[1:]] == ["[b]", "mine"]


def test_output_may_be_cut_off(cli: Cli) -> None:
    command = f"'{sys.executable}' -m aserpc list | head -n 1"
    done = subprocess.run(
        command, shell=True, cwd=cli.cwd, env=cli.env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- what is loaded ------------------------------------------------------------------------------

LOADED = """
import sys
{}
heavy = ["scipy", "ase.io", "matplotlib", "torch", "ase.calculators.emt", "ase.calculators.lj"]
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
HELP = """
from aserpc.cli import app
try:
    app({})
except SystemExit as end:
    assert not end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import aserpc",
        "from aserpc import *",
        "from aserpc import RemoteCalculator; RemoteCalculator('x', check_broker=False)",
        HELP.format(["--help"]),
        HELP.format(["run", "--help"]),
        HELP.format(["list"]),
    ],
    ids=["import", "star import", "RemoteCalculator", "help", "run help", "list"],
)
def test_nothing_heavy_is_loaded(cli: Cli, code: str) -> None:
    command = [sys.executable, "-c", LOADED.format(code)]
    done = subprocess.run(
        command, cwd=cli.cwd, env=cli.env, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


# ---- the flags of aserpc 0.1.3 -------------------------------------------------------------------


def test_the_brokers_flags(cli: Cli) -> None:
    broker = cli.start(
        *("broker", "--frontend", f"{cli.frontend}x", "--backend", f"{cli.backend}x"),
        *("--timeout", "10", "--queue-timeout", "20", "--log-level", "DEBUG"),
    )
    wait_for(lambda: "serving clients" in broker.errors())
    assert (cli.sockets / "frontend.ipcx").exists()
    assert (cli.sockets / "backend.ipcx").exists()


def test_the_workers_flags(cli: Cli) -> None:
    (cli.cwd / "mine.py").write_text(
        "from ase.calculators.lj import LennardJones\n"
        "def found():\n"
        "    return {'lj': LennardJones}\n"
    )
    cli.broker()
    flags = ["--registry", "mine.py:found", "--broker", cli.backend, "--idle-timeout", "60"]
    flags += ["--kwargs", '{"epsilon": 2.0}', "--heartbeat", "1", "--log-level", "debug"]
    cli.start("worker", "lj", *flags, "-n", "one")
    cli.start("worker", "lj", *flags, "--name", "two", "--args", "[]")
    wait_for(lambda: set(cli.status()["workers"]) == {"one", "two"})


def test_version(cli: Cli) -> None:
    import aserpc

    assert cli.run("--version").output == f"aserpc {aserpc.__version__}\n"


# ---- mistakes ------------------------------------------------------------------------------------


def broken_pyproject(cwd: Path) -> None:
    (cwd / "pyproject.toml").write_text("[tool.aserpc\n")


def unknown_setting(cwd: Path) -> None:
    (cwd / "pyproject.toml").write_text("[tool.aserpc]\nworker_timeuot = 3\n")


def broken_registry(cwd: Path) -> None:
    (cwd / "broken.py").write_text("CALCULATORS = {\n")
    (cwd / "raises.py").write_text("raise OSError('no disk')\n")
    (cwd / "number.py").write_text("CALCULATORS = 7\n")
    (cwd / "broken.toml").write_text("[calculators.it\n")


def nothing(cwd: Path) -> None:
    pass


#: Command, what its message must hold, what is in its folder, its environment.
MISTAKES: list[tuple[str, str, Callable[[Path], None], dict[str, str]]] = [
    ("worker emtt", "emtt", nothing, {}),
    ("worker nowhere.py:Calc", "nowhere.py", nothing, {}),
    ("worker nowhere:Calc", "nowhere", nothing, {}),
    ("worker ./nowhere.py", "nowhere.py", nothing, {}),
    ("run EMT nowhere.xyz", "nowhere.xyz", nothing, {}),
    ("worker ase.nowhere:Calc", "ase.nowhere", nothing, {}),
    ("worker ase.calculators.emt:EMTT", "EMTT", nothing, {}),
    ("worker EMT --kwargs {bad", "{bad", nothing, {}),
    ("worker EMT --kwargs [1]", "--kwargs", nothing, {}),
    ("worker EMT --args {}", "--args", nothing, {}),
    ("worker EMT --broker somewhere", "--broker = 'somewhere' (command line)", nothing, {}),
    ("worker EMT --broker tcp://host", "tcp://host", nothing, {}),
    ("worker EMT --idle-timeout -1", "--idle-timeout = -1.0", nothing, {}),
    ("worker EMT --heartbeat soon", "soon", nothing, {}),
    ("worker EMT --log-level LOUD", "LOUD", nothing, {}),
    ("worker EMT --registry nowhere.toml", "nowhere.toml", nothing, {}),
    ("worker it --registry broken.py:CALCULATORS", "broken.py", broken_registry, {}),
    ("worker it --registry raises.py:CALCULATORS", "no disk", broken_registry, {}),
    ("worker it --registry number.py:CALCULATORS", "number.py", broken_registry, {}),
    ("worker it --registry broken.toml", "broken.toml", broken_registry, {}),
    ("worker", "'calculator'", nothing, {}),
    ("worker EMT --colour red", "--colour", nothing, {}),
    ("list --registry broken.toml", "broken.toml", broken_registry, {}),
    ("list --registry nowhere:CALCULATORS", "nowhere", nothing, {}),
    ("broker --frontend http://here", "--frontend = 'http://here'", nothing, {}),
    ("broker --frontend ipc:///proc/nowhere/f", "/proc/nowhere", nothing, {}),
    ("broker --timeout 0", "0", nothing, {}),
    ("broker --queue-timeout never", "never", nothing, {}),
    ("broker --log-level 7", "7", nothing, {}),
    ("broker", "ASERPC_WORKER_TIMEOUT", nothing, {"ASERPC_WORKER_TIMEOUT": "soon"}),
    ("broker", "ASERPC_WORKER_TIMEOUT", nothing, {"ASERPC_WORKER_TIMEUOT": "3"}),
    ("broker", "ASERPC_LOG_LEVEL", nothing, {"ASERPC_LOG_LEVEL": "LOUD"}),
    ("broker", "pyproject.toml", broken_pyproject, {}),
    ("broker", "worker_timeout", unknown_setting, {}),
    ("status", "Broker not reachable", nothing, {}),
    ("status --broker somewhere", "--broker = 'somewhere'", nothing, {}),
    ("list --broker somewhere", "--broker = 'somewhere'", nothing, {}),
    ("run EMT a.xyz --broker somewhere", "--broker = 'somewhere'", nothing, {}),
    ("run EMT a.xyz --relax --fmax nan", "--fmax", nothing, {}),
    ("run EMT a.xyz --relax --fmax -1", "--fmax", nothing, {}),
    ("run EMT a.xyz --relax --steps -5", "--steps", nothing, {}),
    ("list --running", "Broker not reachable", nothing, {}),
    ("shutdown", "--all", nothing, {}),
    ("shutdown --all", "Broker not reachable", nothing, {}),
    ("restart", "restart", nothing, {}),
]


def test_every_mistake_is_one_clear_line(cli: Cli) -> None:
    commands = []
    base = cli.cwd
    for number, (command, _, prepare, env) in enumerate(MISTAKES):
        cli.cwd = base / str(number)
        cli.cwd.mkdir()
        prepare(cli.cwd)
        commands.append(cli.start(*command.split(), **env))
    wrong = []
    for (command, expected, _, _), process in zip(MISTAKES, commands, strict=True):
        code, text = process.wait(40), process.errors()
        said = [line for line in text.splitlines() if " INFO " not in line]
        said = [line for line in said if "waiting for a broker" not in line]
        good = code == 2 and len(said) == 1 and expected in said[0]
        if not good or "Traceback" in text or process.output():
            wrong.append(f"{command}: exit code {code}, {process.output()}{text}")
    assert not wrong, "\n\n".join(wrong)


def test_a_current_folder_that_is_gone_is_a_mistake_too(cli: Cli) -> None:
    command = f"mkdir gone; cd gone; rmdir ../gone; '{sys.executable}' -m aserpc status"
    done = subprocess.run(
        command, shell=True, cwd=cli.cwd, env=cli.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_leaves_no_traceback(cli: Cli) -> None:
    process = cli.start("status", "--broker", f"ipc://{cli.sockets}/nobody.ipc")
    wait_for(lambda: _handles_signals(process.pid))
    process.signal(signal.SIGINT)
    assert process.wait() not in (0, 2)
    assert "Traceback" not in process.errors()


def _handles_signals(pid: int) -> bool:
    """Whether Python's own handler of SIGINT is in place, and zmq's thread beside it."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return bool(int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1) and threads > 2
