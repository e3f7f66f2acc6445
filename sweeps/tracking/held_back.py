"""Holds back what a tracker is told of trials with public views until it is known what the views disclose: their claims say so.

The disclosure is measured beside the first trials. What is held back is lost where the driver is killed, and told again on a resume, as
everything is that a tracker may have missed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sweeps.records.results import CurvePoint, TrialRecord

if TYPE_CHECKING:
    from sweeps.report.disclosure import PolicyDisclosure
    from sweeps.report.disclosure_sheet import DisclosureSheet
    from sweeps.tracking.browsing import SweepSummary


class HeldBack:
    """A tracker in front of another. What concerns a trial with a split waits for `views_disclosed`, in its order."""

    def __init__(self, behind: Any) -> None:
        """`behind`: the tracker that hears of everything in the end."""
        self._behind = behind
        self._waiting: list[Callable[[], None]] | None = []

    def sweep_started(self) -> None:
        """Passed on."""
        self._behind.sweep_started()

    def views_disclosed(self, policy: PolicyDisclosure, sheet: DisclosureSheet) -> None:
        """Passed on, then everything that waited for it; from now on everything at once."""
        self._behind.views_disclosed(policy, sheet)
        waiting, self._waiting = self._waiting or [], None
        for tell in waiting:
            tell()

    def trial_started(self, record: TrialRecord) -> None:
        """Passed on or held back."""
        self._tell(record, lambda: self._behind.trial_started(record))

    def reported(self, record: TrialRecord, report: CurvePoint) -> None:
        """Passed on or held back."""
        self._tell(record, lambda: self._behind.reported(record, report))

    def trial_ended(self, record: TrialRecord) -> None:
        """Passed on or held back."""
        self._tell(record, lambda: self._behind.trial_ended(record))

    def summary(self, summary: SweepSummary) -> None:
        """Passed on: by then nothing waits."""
        self._behind.summary(summary)

    @property
    def runs_url(self) -> str | None:
        """Of the tracker behind it."""
        url: str | None = self._behind.runs_url
        return url

    def close(self, *, interrupted: bool = False) -> None:
        """Passed on. What still waits is told when the sweep goes on, with the disclosure."""
        self._behind.close(interrupted=interrupted)

    def _tell(self, record: TrialRecord, tell: Callable[[], None]) -> None:
        if self._waiting is None or record.config.split is None:
            tell()
        else:
            self._waiting.append(tell)
