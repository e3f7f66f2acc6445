"""Reads the studies of a sweep, also while its driver runs, for whoever only looks.

A journal is read without Optuna, which takes a third of a second to import and builds an object for each of ten entries a trial. What
Optuna writes there and how it takes it in is held to `optuna.storages.JournalStorage` by tests/sweeps/search/test_reading.py. Studies in a
database are read through Optuna.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from dpcore.errors import Corrupt
from sweeps.search.remembered import RECORD, is_replaced, record_of

if TYPE_CHECKING:
    from pathlib import Path

    from sweeps.records.spec import SweepSpec


class SeenState(IntEnum):
    """The state of a trial, by Optuna's numbers and names."""

    RUNNING = 0
    COMPLETE = 1
    PRUNED = 2
    FAIL = 3
    WAITING = 4

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self not in (SeenState.RUNNING, SeenState.WAITING)


@dataclass(kw_only=True)
class SeenTrial:
    """A trial of a study as it was last told. `value`: what it was told to have ended with."""

    number: int
    state: SeenState
    value: float | None
    user_attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class SeenStudy:
    """A study with its trials, in their order."""

    name: str
    user_attrs: dict[str, Any] = field(default_factory=dict)
    trials: list[SeenTrial] = field(default_factory=list)

    def counted(self, *, set_aside: Collection[str], where: str) -> list[SeenTrial]:
        """The trials that count: those that became a record, and whose place no other one took."""
        found = [trial for trial in self.trials if RECORD in trial.user_attrs and not is_replaced(trial)]
        return [trial for trial in found if not set_aside or record_of(trial, where=where).trial_id not in set_aside]


def read_studies(spec: SweepSpec) -> dict[str, SeenStudy]:
    """The studies of a sweep, by the last part of their names; none where none was begun.

    Raises:
        Corrupt: the journal is damaged. Unavailable: the database does not answer.
    """
    found = read_journal(spec.study_path) if spec.study_url is None else _through_optuna(spec)
    return {study.name.removeprefix(f"{spec.name}/"): study for study in found if study.name.startswith(f"{spec.name}/")}


def read_journal(path: Path) -> list[SeenStudy]:
    """The studies in a journal file, none where there is no file. A last line that is still being written is left out.

    Raises:
        Corrupt: an entry is no JSON, or not what Optuna writes.
    """
    journal = _Journal()
    if not path.is_file():
        return []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                journal.take_in(json.loads(line))
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                raise Corrupt(f"{path} line {number} cannot be read: {error!r}; put a copy of the file back") from None
    return list(journal.studies.values())


class _Journal:
    """What the entries so far say. Trials are numbered over all studies, studies by when they came; an entry for one that is not there,
    or for a trial that has ended, says nothing: another process lost a race."""

    def __init__(self) -> None:
        self.studies: dict[int, SeenStudy] = {}
        self._begun = 0
        self._trials: list[SeenTrial] = []
        self._of = {
            0: self._study_created,
            1: self._study_deleted,
            2: self._study_told,
            3: _nothing,  # attributes of Optuna's own
            4: self._trial_created,
            5: _nothing,  # parameters: the record has them
            6: self._trial_ended,
            7: _nothing,  # intermediate values: the reports have them
            8: self._trial_told,
            9: _nothing,
            10: _nothing,
        }

    def take_in(self, entry: Mapping[str, Any]) -> None:
        """The next entry."""
        self._of[entry["op_code"]](entry)

    def _study_created(self, entry: Mapping[str, Any]) -> None:
        name = entry["study_name"]
        if all(study.name != name for study in self.studies.values()):
            self.studies[self._begun] = SeenStudy(name=name)
            self._begun += 1

    def _study_deleted(self, entry: Mapping[str, Any]) -> None:
        self.studies.pop(entry["study_id"], None)

    def _study_told(self, entry: Mapping[str, Any]) -> None:
        if (study := self.studies.get(entry["study_id"])) is not None:
            study.user_attrs.update(entry["user_attr"])

    def _trial_created(self, entry: Mapping[str, Any]) -> None:
        study = self.studies.get(entry["study_id"])
        if study is None:
            return
        values = entry.get("values")
        trial = SeenTrial(
            number=len(study.trials),
            state=SeenState(entry.get("state", SeenState.RUNNING)),
            value=values[0] if values else entry.get("value"),
            user_attrs=dict(entry.get("user_attrs", {})),
        )
        study.trials.append(trial)
        self._trials.append(trial)

    def _trial_ended(self, entry: Mapping[str, Any]) -> None:
        if (trial := self._open_trial(entry)) is not None:
            trial.state = SeenState(entry["state"])
            if entry["values"] is not None:
                (trial.value,) = entry["values"]

    def _trial_told(self, entry: Mapping[str, Any]) -> None:
        if (trial := self._open_trial(entry)) is not None:
            trial.user_attrs.update(entry["user_attr"])

    def _open_trial(self, entry: Mapping[str, Any]) -> SeenTrial | None:
        number = entry["trial_id"]
        if not 0 <= number < len(self._trials):
            return None
        trial = self._trials[number]
        return None if trial.state.is_finished else trial


def _nothing(entry: Mapping[str, Any]) -> None:
    """What nobody asks for here."""


def _through_optuna(spec: SweepSpec) -> list[SeenStudy]:
    from sweeps.search.storage import read_storage

    storage = read_storage(spec)
    return [] if storage is None else [_seen(storage, study) for study in storage.get_all_studies()]


def _seen(storage: Any, study: Any) -> SeenStudy:
    trials = [
        SeenTrial(number=one.number, state=SeenState(one.state), value=one.value, user_attrs=dict(one.user_attrs))
        for one in storage.get_all_trials(study._study_id, deepcopy=False)
    ]
    return SeenStudy(name=study.study_name, user_attrs=dict(study.user_attrs), trials=trials)
