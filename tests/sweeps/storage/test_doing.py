"""What a running trial says that it is at before its first report."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ended_sweep import ACCOUNTANT, spec_of

from dpcore.privacy.randomness import SweepKey
from sweeps.engine.schedule import Schedule
from sweeps.engine.searcher import ScheduleSearcher
from sweeps.pricing.reservations import Reservations
from sweeps.pricing.selection import Selection
from sweeps.records.charged import open_ledger
from sweeps.records.messages import Assignment
from sweeps.search.terms import terms_of
from sweeps.storage import doing
from sweeps.storage.doing import Doing, DoingFile, doing_of, file_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(doing.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_the_time_left_follows_from_what_was_counted_since_the_part_began(tmp_path: Path, clock: Callable[[float], None]) -> None:
    doing.listen(tmp_path)
    file = DoingFile(file_of(tmp_path, "e0.5-000"))
    file.hear("public training, step", 100, 800)
    clock(10.0)
    file.hear("public training, step", 200, 800)
    found = doing_of(tmp_path, "e0.5-000")
    assert found == Doing(what="public training, step", first=100, done=200, total=800, seconds=10.0)
    assert found.seconds_left == pytest.approx(60.0)
    clock(0.5)
    file.hear("public training, step", 210, 800)
    assert doing_of(tmp_path, "e0.5-000") == found  # once a second
    clock(1.0)
    file.hear("scoring, person", 32, 500)
    assert doing_of(tmp_path, "e0.5-000") == Doing(what="scoring, person", first=32, done=32, total=500, seconds=0.0)
    doing.stop_listening(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_ends_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    doing.listen(tmp_path)
    monkeypatch.setattr(doing, "replace_file", full)
    DoingFile(file_of(tmp_path, "e0.5-000")).hear("public training, step", 1, 2)
    assert doing_of(tmp_path, "e0.5-000") is None


def test_a_worker_on_another_machine_writes_nothing(tmp_path: Path) -> None:
    DoingFile(file_of(tmp_path / "state", "e0.5-000")).hear("public training, step", 1, 2)
    assert list(tmp_path.iterdir()) == []
    assert doing_of(tmp_path, "e0.5-000") is None


@pytest.mark.parametrize("protected", [False, True])
def test_a_trial_is_told_where_to_say_it_unless_its_people_are_protected(tmp_path: Path, protected: bool) -> None:
    spec = spec_of(tmp_path)
    reservations = Reservations(spec, open_ledger(spec), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec), clock=None if protected else time.monotonic)
    searcher = ScheduleSearcher(spec, schedule, max_concurrent=1)
    told = Assignment.decode(searcher.suggest("x"), searcher.envelope)
    assert told.doing == (None if protected else file_of(spec.state_dir, told.trial_id))


def test_no_file_names_a_trial_of_a_private_selection(tmp_path: Path) -> None:
    law = {"accounting": "private_selection", "trials_per_epsilon": None, "selection": {"mean_trials": 3}}
    spec = spec_of(tmp_path, sweep=law)
    reservations = Reservations(spec, open_ledger(spec), ACCOUNTANT, validation=None, cohort="dd", key_id="k")
    selection = Selection(spec, SweepKey.fresh())
    schedule = Schedule(spec, ACCOUNTANT, reservations, terms=terms_of(spec), selection=selection, clock=time.monotonic)
    assert not schedule.may_be_followed
