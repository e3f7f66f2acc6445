"""Every report of a sweep, one JSON document a line, so that a resume has the curves of trials that ended before it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dpcore.durable import append_lines, cut_half_line
from dpcore.errors import Corrupt
from sweeps.records.results import CurvePoint, TrialRecord


class ReportsFile:
    """Appended by the driver that holds the sweep's lock. A line that a kill cut short is dropped: the trial reports it again."""

    def __init__(self, path: Path) -> None:
        cut_half_line(path)
        self._path = path

    def append(self, record: TrialRecord, point: CurvePoint) -> None:
        """Adds a report; it is on disk afterwards."""
        line = {
            "trial_id": record.trial_id,
            "attempt": record.attempt,
            "step": point.step,
            "metrics": point.metrics,
            "weights_digest": point.weights_digest,
        }
        append_lines(self._path, [json.dumps(line, sort_keys=True)])  # of a diverged trial it may hold NaN

    def read(self) -> Iterator[tuple[str, int, CurvePoint]]:
        """Trial id, attempt and point of every report, in the order in which they came.

        Raises:
            Corrupt: a line is no report.
        """
        if not self._path.is_file():
            return
        for number, text in enumerate(self._path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                line = json.loads(text)
                point = CurvePoint(int(line["step"]), dict(line["metrics"]), str(line["weights_digest"]))
                trial_id, attempt = str(line["trial_id"]), int(line["attempt"])
            except (ValueError, KeyError, TypeError) as error:
                raise Corrupt(f"{self._path}:{number} is no report ({error}); remove the line, its trial's curve has a gap then") from None
            yield trial_id, attempt, point
