"""A ledger that was lost, restored from yesterday or damaged: nobody writes to it, and its witness brings it back."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dpcore.errors import BadInput, Corrupt, Refused, Unavailable
from sweeps.ledger import database
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.restoring import restore

ONE = Reservation(
    sweep="s", trial_id="e1-000", dataset="d", cohort="dd", sampling_prob=0.137, noise_multiplier=2.1875, steps=5, epsilon=0.5, delta=1e-5
)  # fmt: skip


def numbered(number: int) -> Reservation:
    return replace(ONE, trial_id=f"e1-{number:03d}")


def epsilon_of(charge: object, delta: float) -> float:
    return 0.25


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A ledger of 20 lines; beside it lies its state after the first 12."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", witness=tmp_path / "s" / "ledger.witness")
    for number in range(20):
        ledger.reserve(numbered(number))
        if number == 11:
            ledger.close()
            shutil.copy(tmp_path / "ledger.sqlite", tmp_path / "yesterday.sqlite")
    ledger.close()
    return tmp_path / "ledger.sqlite"


def lose(file: Path, how: str) -> None:
    for path in file.parent.glob("ledger.sqlite-*"):
        path.unlink()
    if how == "yesterday":
        shutil.copy(file.with_name("yesterday.sqlite"), file)
    else:
        file.unlink()
    if how == "emptied":
        Ledger(f"sqlite:///{file.with_name('empty.sqlite')}").close()
        shutil.copy(file.with_name("empty.sqlite"), file)


@pytest.mark.parametrize("how", ["yesterday", "deleted", "emptied"])
def test_nobody_writes_to_a_ledger_that_went_back_in_time(file: Path, how: str) -> None:
    lose(file, how)
    with pytest.raises(Refused, match=r"is gone|lines were removed"):
        Ledger(f"sqlite:///{file}").reserve(numbered(20))
    assert how == "deleted" or len(Ledger(f"sqlite:///{file}", read_only=True).lines()) == (12 if how == "yesterday" else 0)


@pytest.mark.parametrize("how", ["yesterday", "deleted", "emptied"])
def test_the_sweeps_own_witness_knows_when_ledger_and_witness_are_both_lost(file: Path, how: str) -> None:
    lose(file, how)
    (file.parent / "ledger.sqlite.witness").unlink()
    for given in ({"witness": file.parent / "s" / "ledger.witness"}, {"others": [file.parent / "s" / "ledger.witness"]}):
        with pytest.raises(Refused, match=r"witness.* (is missing|remembers)"):
            Ledger(f"sqlite:///{file}", **given).reserve(numbered(20))


@pytest.mark.parametrize("how", ["yesterday", "deleted", "emptied"])
@pytest.mark.parametrize("with_beside", [True, False])
def test_lost_lines_come_back_from_a_witness_with_the_same_hashes(file: Path, how: str, with_beside: bool) -> None:
    before = Ledger(f"sqlite:///{file}").lines()
    lose(file, how)
    if not with_beside:
        (file.parent / "ledger.sqlite.witness").unlink()
    url = f"sqlite:///{file}"
    assert restore(url, [file.parent / "s" / "ledger.witness"]) == (8 if how == "yesterday" else 20)
    if not with_beside:
        assert Ledger(url).renew_witness().number == 21
    assert Ledger(url).lines()[:20] == before
    assert Ledger(url).verify(epsilon_of) == ()
    Ledger(url).reserve(numbered(30))


def test_zeroed_pages_are_found_refused_and_written_anew(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = bytearray(file.read_bytes())
    content[8192:12288] = bytes(4096)
    file.write_bytes(content)
    assert "damaged" in Ledger(f"sqlite:///{file}", read_only=True).verify(epsilon_of)[0]
    assert restore(f"sqlite:///{file}", []) == 20
    assert file.with_name("ledger.sqlite.damaged").is_file()
    assert Ledger(f"sqlite:///{file}").verify(epsilon_of) == ()


def test_a_zeroed_page_anywhere_is_refused_by_every_plan_and_resume_also_where_all_lines_read(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    content = file.read_bytes()
    still_read = []
    for page in range(4096, len(content), 4096):
        file.write_bytes(content[:page] + bytes(4096) + content[page + 4096 :])
        with pytest.raises(Corrupt, match=r"ledger\.sqlite.*--restore"):
            Ledger(f"sqlite:///{file}", read_only=True).require_whole()
        with contextlib.suppress(Corrupt):
            still_read.append(len(Ledger(f"sqlite:///{file}", read_only=True).lines()))
    assert 20 in still_read  # an index page: the lines are whole, a reservation that is there would not be found


def test_what_a_witness_of_hashes_alone_remembers_cannot_be_written_back(file: Path) -> None:
    witness = file.with_name("ledger.sqlite.witness")
    witness.write_text("".join(" ".join(line.split(" ")[:2]) + "\n" for line in witness.read_text().splitlines()))  # as 0.1.0 wrote it
    lose(file, "yesterday")
    with pytest.raises(Corrupt, match=r"line 13 is not whole in any witness.*bring back a copy"):
        restore(f"sqlite:///{file}", [])
    with pytest.raises(Refused, match="lines were removed"):
        Ledger(f"sqlite:///{file}").reserve(numbered(20))


def test_the_witness_of_a_first_version_is_filled_by_the_next_line(file: Path) -> None:
    witness = file.with_name("ledger.sqlite.witness")
    witness.write_text("".join(" ".join(line.split(" ")[:2]) + "\n" for line in witness.read_text().splitlines()))
    Ledger(f"sqlite:///{file}").reserve(numbered(20))
    lose(file, "deleted")
    assert restore(f"sqlite:///{file}", []) == 21


def test_only_a_lost_witness_is_made_anew_and_the_ledger_says_so_for_good(file: Path) -> None:
    ledger = Ledger(f"sqlite:///{file}")
    with pytest.raises(Refused, match="is there"):
        ledger.renew_witness()
    file.with_name("ledger.sqlite.witness").unlink()
    with pytest.raises(Refused, match=r"cannot be told.*--renew-witness"):
        ledger.reserve(numbered(20))
    assert "after 20 lines" in ledger.renew_witness().outcome
    assert Ledger(f"sqlite:///{file}").reserve(numbered(20)).number == 22
    assert Ledger(f"sqlite:///{file}").verify(epsilon_of) == ()


def test_a_servers_database_is_not_restored_from_here() -> None:
    with pytest.raises(BadInput, match="server's own copies"):
        restore("postgresql://host/db", [])


HOLD = "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); time.sleep(600)"  # noqa: E501


def test_a_lock_is_waited_for_with_one_line_and_ends_in_one_message(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    monkeypatch.setattr(database, "PATIENCE_S", 0.5)
    ledger = Ledger(f"sqlite:///{file}")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Unavailable, match="has been locked by another process") as refused:
            ledger.reserve(numbered(20))
        holder.kill()
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__
    assert capsys.readouterr().err.count("waiting up to") == 1
    assert ledger.reserve(numbered(20)).number == 21


def test_a_lock_that_is_let_go_costs_only_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    began, slept = time.monotonic(), []

    def let_go(seconds: float) -> None:
        slept.append(seconds)
        holder.execute("COMMIT")

    monkeypatch.setattr("sweeps.ledger.database.time.sleep", let_go)
    assert Ledger(f"sqlite:///{file}").reserve(numbered(20)).number == 21
    assert len(slept) == 1
    assert time.monotonic() - began < 60
    holder.close()


@pytest.mark.parametrize(
    ("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete"), ("cifs", "delete"), ("lustre", "delete"), ("fuse.sshfs", "delete")]
)
def test_a_write_ahead_log_is_for_local_disks_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mode: str) -> None:
    mounts = tmp_path / "mounts"
    shown = str(tmp_path.resolve()).replace(" ", "\\040")
    mounts.write_text(f"overlay / overlay rw 0 0\nserver:/x {shown} {kind} rw 0 0\n")
    monkeypatch.setattr(database, "MOUNTS", mounts)
    file = tmp_path / "below" / "ledger.sqlite"
    ledger = Ledger(f"sqlite:///{file}")
    ledger.reserve(ONE)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
    connection.close()
    assert file.with_name("ledger.sqlite-wal").exists() == (mode == "wal")


def test_a_look_changes_no_byte_and_is_not_held_up_by_a_writer(file: Path) -> None:
    ledger = Ledger(f"sqlite:///{file}")
    ledger.reserve(numbered(20))
    content, table = file.read_bytes(), sqlite3.connect(file, isolation_level=None)
    table.execute("BEGIN IMMEDIATE")
    look = Ledger(f"sqlite:///{file}", read_only=True)
    assert len(look.lines()) == 21
    look.require_whole()
    table.execute("ROLLBACK")
    table.close()
    assert file.read_bytes() == content
    with pytest.raises(TypeError, match="was opened for a look"):
        look.reserve(numbered(21))
