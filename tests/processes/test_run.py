"""``aserpc run``: the main job in one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write

DATA = Path(__file__).parents[1] / "data"
ASERPC = (sys.executable, "-m", "aserpc")


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASERPC_")}
    return subprocess.run(
        [*ASERPC, "run", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def energy_of(atoms: Atoms) -> float:
    local = atoms.copy()
    local.calc = EMT()
    return float(local.get_potential_energy())


def test_evaluates_a_real_structure_and_prints_a_plain_table(tmp_path: Path) -> None:
    done = run("EMT", DATA / "cu111_co.extxyz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    slab = read(DATA / "cu111_co.extxyz")
    assert isinstance(slab, Atoms)
    title, row = done.stdout.splitlines()
    assert "Energy (eV)" in title
    assert f"{energy_of(slab):.6f}" in row
    assert "\x1b" not in done.stdout


def test_writes_every_structure_with_its_results(tmp_path: Path) -> None:
    images = [bulk("Cu"), bulk("Ni"), molecule("CO")]
    write(tmp_path / "in.traj", images)
    done = run("EMT", "in.traj", "--workers", 2, "-o", "out.extxyz", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = read(tmp_path / "out.extxyz", index=":")
    assert [a.get_chemical_formula() for a in written] == ["Cu", "Ni", "CO"]
    assert [a.get_potential_energy() for a in written] == pytest.approx(
        [energy_of(a) for a in images]
    )


def test_relaxes_and_says_so(tmp_path: Path) -> None:
    done = run(
        *("EMT", DATA / "cu111_co.extxyz", "--relax", "--fmax", 0.05, "--json"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["converged"]
    assert row["steps"] > 1
    assert row["max_force"] <= 0.05


def test_one_failure_is_named_and_the_others_are_written(tmp_path: Path) -> None:
    write(tmp_path / "in.extxyz", [molecule("CO"), molecule("HF"), molecule("N2")])
    done = run("EMT", "in.extxyz", "-o", "out.extxyz", cwd=tmp_path)
    assert done.returncode == 1
    assert "in.extxyz@1" in done.stderr
    assert "No EMT-potential for F" in done.stderr
    assert "Traceback" not in done.stderr
    written = read(tmp_path / "out.extxyz", index=":")
    assert [a.get_chemical_formula() for a in written] == ["CO", "N2"]


def test_what_a_calculator_has_not_for_one_structure_it_may_have_for_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "choosy.py").write_text(
        "from ase.calculators.calculator import PropertyNotImplementedError\n"
        "from ase.calculators.emt import EMT\n"
        "class Choosy(EMT):\n"
        "    def calculate(self, atoms=None, *args, **kwargs):\n"
        "        if not atoms.pbc.any():\n"
        "            raise PropertyNotImplementedError('no forces of molecules')\n"
        "        super().calculate(atoms, *args, **kwargs)\n"
    )
    write(tmp_path / "in.extxyz", [molecule("CO"), bulk("Cu")])
    done = run("choosy:Choosy", "in.extxyz", "--relax", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "in.extxyz@0 (CO) failed: no forces of molecules" in done.stderr
    assert json.loads(done.stdout)[1]["error"] is None


def test_takes_a_slice_of_a_file(tmp_path: Path) -> None:
    done = run("EMT", DATA / "g2.extxyz", "--index", ":3", "--json", cwd=tmp_path)
    assert [row["formula"] for row in json.loads(done.stdout)] == ["H2O", "CH4", "H3N"]


def test_reads_cif_with_a_registry_of_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from ase.calculators.lj import LennardJones\nCALCULATORS = {'soft lj': LennardJones}\n"
    )
    done = run(
        *("soft lj", DATA / "tio2_rutile.cif", "--registry", "mine.py:CALCULATORS"),
        *("--kwargs", '{"epsilon": 0.1}', "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["formula"] == "O4Ti2"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("EMT", "nothing.xyz"), "there is no file nothing.xyz"),
        (("EMT", "notes.txt"), "cannot read"),
        (("EMT", "in.xyz", "--index", "nonsense"), "nonsense"),
        (("EMT", "in.xyz", "-o", "out.unknown"), "no ending that ASE knows"),
        (("EMT", "in.xyz", "-o", "missing/out.xyz"), "does not exist"),
        (("EMT", "in.xyz", "-o", "../{folder}/in.xyz"), "in.xyz is one of the inputs"),
        (("nope", "in.xyz"), "no calculator 'nope'"),
        (("EMT", "in.xyz", "--kwargs", "{"), "no JSON"),
        (("EMT", "in.xyz", "--broker", "nonsense"), "no address"),
        (("EMT", "in.xyz", "--log-level", "loud"), "log level"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", bulk("Cu"))
    (tmp_path / "notes.txt").write_text("no structure\n")
    done = run(
        *(argument.replace("{folder}", tmp_path.name) for argument in arguments), cwd=tmp_path
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_a_calculator_that_cannot_be_made_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def make():\n    raise OSError('no weights in the box')\n")
    write(tmp_path / "in.xyz", bulk("Cu"))
    done = run("broken:make", "in.xyz", cwd=tmp_path)
    assert done.returncode == 1
    assert "no weights in the box" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_that_crashes_at_the_start_is_said_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(
        "import os\ndef make():\n    print('loading the model', flush=True)\n    os._exit(9)\n"
    )
    write(tmp_path / "in.xyz", bulk("Cu"))
    done = run("crash:make", "in.xyz", cwd=tmp_path)
    assert done.returncode == 1
    assert "exit code 9" in done.stderr
    assert "loading the model" in done.stderr


def test_an_interrupt_writes_what_is_finished_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time\n"
        "from ase.calculators.emt import EMT\n"
        "class Slow(EMT):\n"
        "    def calculate(self, atoms=None, *args, **kwargs):\n"
        "        if len(atoms) > 1:\n"
        "            time.sleep(1)\n"
        f"            pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\n"
        "            time.sleep(30)\n"
        "        super().calculate(atoms, *args, **kwargs)\n"
    )
    write(tmp_path / "in.extxyz", [bulk("Cu"), molecule("CO")])
    process = subprocess.Popen(
        [*ASERPC, "run", "slow:Slow", "in.extxyz", "-o", "out.extxyz"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker = wait_for_pid(tmp_path / "pid", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=40)
    assert process.returncode == 130
    assert "in.extxyz@1" in errors
    assert "Traceback" not in errors
    assert len(read(tmp_path / "out.extxyz", index=":")) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def wait_for_pid(path: Path, process: subprocess.Popen[str]) -> int:
    while process.poll() is None:
        if path.exists() and (text := path.read_text()):
            return int(text)
    raise AssertionError(process.communicate())


CRASHING = (
    "import os\n"
    "from ase.calculators.emt import EMT\n"
    "class Crashing(EMT):\n"
    "    def calculate(self, atoms=None, *args, **kwargs):\n"
    "        if len(atoms) == 2:\n"
    "            os.abort()\n"
    "        super().calculate(atoms, *args, **kwargs)\n"
)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_structure_that_kills_its_workers_fails_alone(workers: int, tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHING)
    images = [bulk("Cu"), molecule("CO"), bulk("Ni"), bulk("Pd"), bulk("Ag")]
    write(tmp_path / "in.extxyz", images)
    done = run(
        *("crashing:Crashing", "in.extxyz", "--workers", workers, "-o", "out.extxyz"), cwd=tmp_path
    )
    assert done.returncode == 1
    assert "in.extxyz@1" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(read(tmp_path / "out.extxyz", index=":")) == 4


def test_a_wrong_factory_is_a_mistake(tmp_path: Path) -> None:
    write(tmp_path / "in.xyz", bulk("Cu"))
    for arguments in (["nomodule:X"], ["ase.build:no_such"], ["ase.build:no_such", "--relax"]):
        done = run(*arguments, "in.xyz", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not done.stdout


def test_a_temporary_folder_with_too_long_a_path_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.xyz", bulk("Cu"))
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    done = run("EMT", "in.xyz", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "Set TMPDIR to a folder with a shorter path" in line
    assert list(folder.iterdir()) == []


def test_a_file_named_like_the_package_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "aserpc.py").write_text("print('mine')\n")
    write(tmp_path / "in.xyz", bulk("Cu"))
    command = [str(Path(sys.executable).parent / "aserpc"), "run", "EMT", "in.xyz"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_is_not_finite_is_named_and_the_others_are_computed(tmp_path: Path) -> None:
    far = Atoms("Cu2", [(0, 0, 0), (np.nan, 0, 0)])
    write(tmp_path / "in.traj", [bulk("Cu"), far, bulk("Ni")])
    for flags in ((), ("--relax",)):
        done = run("EMT", "in.traj", "--json", *flags, cwd=tmp_path)
        assert done.returncode == 1
        assert "positions[1] is [nan, 0.0, 0.0]" in done.stderr
        rows = json.loads(done.stdout)
        assert [row["energy"] is None for row in rows] == [False, True, False]
    done = run("EMT", "in.traj", "--json", "--allow-nonfinite", cwd=tmp_path)
    assert "nan, 0.0" not in done.stderr
    rows = json.loads(done.stdout, parse_constant=pytest.fail)
    assert [row["energy"] is None for row in rows] == [False, True, False]
