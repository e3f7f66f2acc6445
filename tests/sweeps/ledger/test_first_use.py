"""The first use of a ledger: by several processes at once, on a full disk, and after a kill in its middle."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import small_disk

from dpcore.errors import DiskFull
from sweeps.ledger.database import is_blank
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.stores import sql_store

ONE = Reservation(
    sweep="s", trial_id="e1-000", dataset="d", cohort="dd", sampling_prob=0.137, noise_multiplier=2.1875, steps=5, epsilon=0.5, delta=1e-5
)  # fmt: skip
WRITE = """
import sys
from dataclasses import replace
from sweeps.ledger.ledger import Ledger, Reservation
one = Reservation(
    sweep=sys.argv[2], trial_id="e1-000", dataset="d", cohort="dd", sampling_prob=0.5, noise_multiplier=2.0, steps=5, epsilon=0.5,
    delta=1e-5,
)
sys.stdin.readline()
Ledger(sys.argv[1]).reserve(one)
"""


def test_processes_that_meet_at_the_first_use_lose_no_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store' / 'ledger.sqlite'}"
    line = [sys.executable, "-c", WRITE, url]
    writers = [subprocess.Popen([*line, f"s{number}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for number in range(3)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = [writer.communicate(timeout=300)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], told
    ledger = Ledger(url)
    assert {one.sweep for one in ledger.lines()} == {"s0", "s1", "s2"}
    assert ledger.verify(lambda charge, delta: 0.25) == ()
    ledger.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sqlite leaves the connection that could not write to the collector
def test_a_full_disk_leaves_no_ledger_and_the_next_use_makes_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=8) as folder:
        with pytest.raises(DiskFull, match=r"ledger\.sqlite"):
            Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        assert not (folder / "ledger.sqlite").exists()
        subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
        ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        assert ledger.reserve(ONE).number == 1
        ledger.close()


def test_a_kill_while_it_is_made_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(sql_store, "prepare_table", killed)
        with pytest.raises(Killed):
            Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert not (tmp_path / "ledger.sqlite").exists()
    Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").close()


@pytest.mark.parametrize("empty", [True, False])
def test_what_an_earlier_version_left_half_made_is_filled(empty: bool, tmp_path: Path) -> None:
    """dpsweep 0.1.0 made the file first and its table then: a kill in between stopped every later sweep of the storage."""
    file = tmp_path / "ledger.sqlite"
    file.touch()
    if not empty:
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    assert is_blank(file)
    ledger = Ledger(f"sqlite:///{file}")
    assert ledger.reserve(ONE).number == 1
    ledger.close()
