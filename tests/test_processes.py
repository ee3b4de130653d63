import os
from pathlib import Path

from soupcore.processes import Log, Pump


def test_a_log_stays_small_and_keeps_the_newest_lines(tmp_path: Path) -> None:
    log = Log(tmp_path / "log", largest=1000)
    for number in range(1000):
        log.write(b"%04d\n" % number)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(files) <= {"log", "log.1"}
    assert sum(map(len, files.values())) <= 2100
    assert (files["log.1"] + files.get("log", b"")).endswith(b"0998\n0999\n")


def test_a_pump_copies_all_lines_although_a_fork_holds_the_pipe() -> None:
    read_end, write_end = os.pipe()
    carried: list[bytes] = []
    pump = Pump(read_end, carried.append)
    os.write(write_end, b"".join(b"line %d\n" % number for number in range(100)) + b"\xff")
    assert pump.last_lines(0.2).splitlines() == [*(f"line {n}" for n in range(96, 100)), "\\xff"]
    os.close(write_end)
    pump.last_lines(30)
    assert b"".join(carried).startswith(b"line 0\n")
