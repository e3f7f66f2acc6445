"""Stores every report of a sweep, one JSON document per line, so that a resume knows the curves of ended trials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from dpcore.durable import OWNER_ONLY, append_lines, cut_half_line
from dpcore.errors import Corrupt
from sweeps.records.results import CurvePoint, TrialRecord


class ReportsFile:
    """The file of reports. The driver that holds the sweep's lock appends to it. A half-written last line is dropped, because the
    trial reports it again."""

    def __init__(self, path: Path) -> None:
        cut_half_line(path)
        self._path = path

    def append(self, record: TrialRecord, point: CurvePoint) -> None:
        """Adds a report. It is on disk when this returns."""
        line = {
            "trial_id": record.trial_id,
            "attempt": record.attempt,
            "step": point.step,
            "metrics": point.metrics,
            "weights_digest": point.weights_digest,
        }
        append_lines(self._path, [json.dumps(line, sort_keys=True)], mode=OWNER_ONLY)  # of a diverged trial it may hold NaN

    def read(self) -> Iterator[tuple[str, int, CurvePoint]]:
        """Trial id, attempt and point of every report, in the order of arrival.

        Raises:
            Corrupt: a line is not a report.
        """
        if not self._path.is_file():
            return
        for number, content in enumerate(self._path.read_bytes().splitlines(), start=1):
            try:
                line = json.loads(content)
                point = CurvePoint(int(line["step"]), dict(line["metrics"]), str(line["weights_digest"]))
                trial_id, attempt = str(line["trial_id"]), int(line["attempt"])
            except (ValueError, KeyError, TypeError) as error:
                raise Corrupt(
                    f"{self._path}:{number} is not a report ({error}); put a copy of the file back, or remove the line: a resume takes "
                    "the report from the trial's folder where it is there"
                ) from None
            yield trial_id, attempt, point
