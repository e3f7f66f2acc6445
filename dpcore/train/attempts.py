"""Attempts at a trial, and the step at which each begins. Torch-free: a driver decides on an attempt and charges it.

A repetition that computes the same sums under the same noise is no new release. It remains the same attempt. Any other try is a new
attempt with fresh noise from its first step on. Its steps are charged again, for two reasons: two sums under one noise would reveal
their difference, and an earlier attempt has already released its reports.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dpcore.config import Part
from dpcore.durable import read_lines
from dpcore.errors import Corrupt
from dpcore.train.reports import Report

CHECKPOINT_PREFIX = "checkpoint-"
DIGESTS_FILE = "digests.jsonl"
IDENTITY_FILE = "trial.json"
RESULT_FILE = "result.json"


class Attempt(Part):
    """An attempt at a trial.

    The released weights of an attempt depend on `from_step` steps of earlier attempts and on its own steps after them. Together these are
    as many steps as planned, whatever else was charged.
    """

    number: int = Field(default=0, ge=0, description="increases by one for every try that is not a replay; names the secret streams")
    from_step: int = Field(default=0, ge=0, description="private steps at the checkpoint from which it continues")
    physical_batch_size: int | None = Field(default=None, ge=1, description="smaller than the runtime's, since memory ran out at that")

    @model_validator(mode="after")
    def _first_begins_at_the_beginning(self) -> Self:
        if self.number == 0 and self.from_step:
            raise ValueError(f"attempt 0 begins at step 0, given from_step {self.from_step}")
        if self.number == 0 and self.physical_batch_size is not None:
            raise ValueError("attempt 0 has the runtime's physical batch: another batch would round its sums differently")
        return self

    def next_in(self, folder: Path) -> Attempt:
        """The next attempt. It continues from the newest checkpoint in `folder`, or from the start."""
        return self.next_from(newest_checkpoint_step(folder))

    def next_from(self, step: int) -> Attempt:
        """The next attempt. It continues from the checkpoint of a step."""
        return self.model_copy(update={"number": self.number + 1, "from_step": step})


FIRST = Attempt()


def newest_checkpoint_step(folder: Path) -> int:
    """The step of the newest checkpoint in a trial's folder; 0 without one."""
    return max((int(path.name.removeprefix(CHECKPOINT_PREFIX)) for path in folder.glob(f"{CHECKPOINT_PREFIX}*")), default=0)


def recorded_reports(folder: Path) -> tuple[int, dict[int, Report]]:
    """The newest attempt in a trial's folder, and its reports by step: its own, and the earlier ones up to where it began.

    Raises:
        Corrupt: a line is no report.
    """
    path, number, reports = folder / DIGESTS_FILE, 0, dict[int, Report]()
    for line in read_lines(path):
        try:
            if "attempt" in line:
                number, first = int(line["attempt"]), int(line["from_step"])
                reports = {step: report for step, report in reports.items() if step <= first}
            else:
                reports[line["step"]] = Report.of_document(line)
        except (KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"{path} has a line that is no report ({error!r}); bring a copy of the file back, or remove {folder}") from None
    return number, reports


def drop_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a trial that will not continue. Its record of reports stays."""
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(path)
