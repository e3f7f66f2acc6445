"""Recognises failures that are alike, so that a fault of all trials ends a sweep before each of them has lost its budget.

Two messages are alike if they name one kind of error and differ only in numbers, quoted texts and names that hold a digit (trial ids,
paths, sizes).
"""

from __future__ import annotations

import re

from dpcore.config.metrics import METRICS
from sweeps.records.results import TrialRecord

IN_A_ROW = 3
"""A sweep ends after so many trials in a row that failed alike, where none has worked."""

OF_ONE_TRIAL = ("Diverged", "cancelled", *(f"val/{name} is no number" for name in METRICS.own))
"""Beginnings of the failures that say nothing of other trials: other settings may work."""

MAY_COME_BACK = ("the worker died", "Unavailable", "dpcore.errors.Unavailable")
"""Beginnings of the failures that another try may not meet."""

_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*\d\S*")


def shape_of(error: str) -> str:
    """What two failures of one cause share."""
    return _PARTICULARS.sub("…", error)


def repeats_itself(error: str, earlier: str | None) -> bool:
    """Whether a trial that failed with `earlier`, was tried again and failed with `error` will fail so every time."""
    return earlier is not None and not error.startswith(MAY_COME_BACK) and shape_of(error) == shape_of(earlier)


class LikeFailures:
    """The failures of a sweep's trials in the order of their ends. The search and the references are counted apart: public training may
    work where no private step does."""

    def __init__(self) -> None:
        self._worked: set[bool] = set()
        self._shape: dict[bool, str] = {}
        self._in_a_row: dict[bool, int] = {}

    def take(self, record: TrialRecord) -> str | None:
        """Takes the end of a trial in. Returns why the sweep should end, or None."""
        group = record.role == "search"
        if record.state != "failed":
            self._worked.add(group)
        if group in self._worked:
            return None
        error = record.error or ""
        shape = shape_of(error)
        self._in_a_row[group] = 1 + (self._in_a_row.get(group, 0) if self._shape.get(group) == shape else 0)
        self._shape[group] = shape
        if error.startswith(OF_ONE_TRIAL) or self._in_a_row[group] < IN_A_ROW:
            return None
        return f"{IN_A_ROW} trials in a row failed alike and none has worked ({record.trial_id}: {error})"
