"""Logs are kept short while they are written, and lose nothing of their end."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from aserpc import logs
from support.waiting import InThread, wait_for


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logs, "MAX_SIZE", 1000)
    return tmp_path / "lj-1.log"


def append(log: Path, *lines: str) -> None:
    with log.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def shown(log: Path) -> list[str]:
    output = io.BytesIO()
    logs.show(log, output, follow=False)
    return output.getvalue().decode().splitlines()


def test_a_short_log_is_left_alone(log: Path) -> None:
    append(log, "short")
    logs.bound(log)
    assert log.read_text() == "short\n"
    assert not logs.earlier(log).exists()


def test_a_log_that_is_not_there_is_no_matter(log: Path) -> None:
    logs.bound(log)
    assert logs.last_lines(log, 3) == ""
    assert not log.exists()


def test_a_long_log_is_cut_and_its_end_is_kept(log: Path) -> None:
    for number in range(1000):
        append(log, f"line {number}")
        logs.bound(log)
        assert log.stat().st_size <= 1000
        assert logs.last_lines(log, 2).splitlines()[-1] == f"line {number}"
    assert logs.earlier(log).stat().st_size == 500


def test_its_writer_goes_on_after_the_cut(log: Path) -> None:
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 5000 + b"\nbefore\n")
        logs.bound(log)
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    assert logs.last_lines(log, 2) == "before\nafter"
    assert shown(log)[-2:] == ["before", "after"]
    assert logs.earlier(log).stat().st_size == 500


def test_a_log_without_an_earlier_part_is_shown(log: Path) -> None:
    append(log, "one", "two")
    assert shown(log) == ["one", "two"]


def test_bytes_that_are_no_text_are_shown_as_they_are(log: Path) -> None:
    log.write_bytes(b"\xff\n")
    output = io.BytesIO()
    logs.show(log, output, follow=False)
    assert output.getvalue() == b"\xff\n"
    assert logs.last_lines(log, 1) == "\N{REPLACEMENT CHARACTER}"


def test_following_goes_on_after_a_cut(log: Path, tmp_path: Path) -> None:
    class Reader(io.BytesIO):
        """Ends when it has read the last line."""

        def flush(self) -> None:
            if b"end" in self.getvalue():
                raise InterruptedError

    append(log, "y" * 2000, "before")
    reader = Reader()
    following = InThread(lambda: logs.show(log, reader, follow=True))
    wait_for(lambda: b"before" in reader.getvalue())
    os.truncate(log, 0)
    append(log, "after", "end")
    with pytest.raises(InterruptedError):
        following.result()
    assert reader.getvalue().endswith(b"before\nafter\nend\n")
