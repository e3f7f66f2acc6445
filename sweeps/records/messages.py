"""What driver and worker tell each other about a trial, and the one place where Ray's dicts are made from it and read.

Ray keeps a trial's config and results in files of its own, and shows them to whoever reaches it. So it sees closed envelopes:
an `Assignment` on the way to the worker, an `Answer` on the way back, and of a crash a `TrialCrashed`. What it may know is
whether a trial is done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from dpcore.config import Part, Places, TrialConfig, parse_config
from dpcore.config.metrics import PCKH_50
from dpcore.config.scored_people import ScoredPeople
from dpcore.privacy.plan import PrivacyPlan
from dpcore.privacy.score_release import ScoreRelease
from dpcore.train.attempts import Attempt
from dpcore.train.reports import Report
from sweeps.storage.envelope import Envelope

Fault = Literal["not_replayable", "not_as_planned", "out_of_memory", "disk_full"]
"""Why a trial ended without its last report, where the driver must know: a new attempt can go on, one with a smaller physical
batch can, nothing can before there is room on the disk; or the claim is void, because something else ran than was reserved."""

ANSWER, ASSIGNMENT, DONE, STEP_SECONDS = "answer", "assignment", "done", "time_this_iter_s"


class BucketPlace(Part):
    """Where a trial's snapshots lie: the bucket, and the path in it."""

    uri: str
    trial: str


class Assignment(Part):
    """What a worker must know of a trial. The sweep key is not in it.

    Attributes:
        folder: where the trial keeps its checkpoints.
        bucket: where its snapshots lie; None on a folder storage.
        plan: what was reserved for it; None where it adds no noise.
        validation: how its score leaves; None where validation is public.
        metric: the score that decides.
        people: of whom scores are counted; None: of all validation people.
        function: the trial function, as module:function.
        doing: where the trial says what it is at before its first report; None where nobody may time it.
        expected: step → digest of the weights that earlier reports of this very attempt had; a replay must reach them again.
    """

    trial_id: str
    attempt: Attempt
    config: TrialConfig
    folder: Path
    bucket: BucketPlace | None = None
    sealed: bool = False
    plan: PrivacyPlan | None = None
    validation: ScoreRelease | None = None
    metric: str = PCKH_50
    people: ScoredPeople | None = None
    places: Places
    function: str
    doing: Path | None = None
    expected: dict[int, str] = Field(default_factory=dict)

    def encode(self, envelope: Envelope) -> dict[str, str]:
        """As Ray's config of the trial."""
        return {ASSIGNMENT: envelope.seal(self.model_dump(mode="json"))}

    @classmethod
    def decode(cls, config: Mapping[str, Any], envelope: Envelope) -> Self:
        """The inverse of `encode`."""
        return parse_config(cls, envelope.open(config[ASSIGNMENT]))


def trial_id_in(config: Mapping[str, Any], envelope: Envelope) -> str:
    """The id of the trial that Ray runs with this config."""
    return str(envelope.open(config[ASSIGNMENT])["trial_id"])


class TrialCrashed(Exception):
    """A trial function raised what is no answer. Its words may quote a record, and Ray writes down what a worker raises: so they
    travel in an envelope."""

    @classmethod
    def of(cls, error: str, envelope: Envelope) -> Self:
        """A crash with its words, closed."""
        return cls(f"<{envelope.seal(error)}>")


_CLOSED_WORDS = re.compile(rf"{TrialCrashed.__name__}: <([\w=-]+)>")


def words_of_crash(text: str, envelope: Envelope) -> str | None:
    """What a worker said as it crashed, read off Ray's text of the failure; None where it said nothing: its process died."""
    found = _CLOSED_WORDS.search(text)
    return None if found is None else str(envelope.open(found.group(1)))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one step of a worker gave.

    Attributes:
        done: whether nothing more will come.
        report: of the trial function; None in a failure, and where nothing may be told.
        error: what went wrong, in one line; fault: how the trial can go on.
        physical_batch_size: at which memory ran out.
    """

    done: bool
    report: Report | None = None
    error: str | None = None
    fault: Fault | None = None
    physical_batch_size: int | None = None

    def encode(self, envelope: Envelope) -> dict[str, Any]:
        """As a result of Ray: flat, so that Ray changes nothing of it. Ray takes the time of a step from there too."""
        content = {**asdict(self), "report": None if self.report is None else self.report.document()}
        said = {name: value for name, value in content.items() if name != DONE and value is not None}
        return {DONE: self.done, ANSWER: envelope.seal(said), STEP_SECONDS: 0.0}

    @classmethod
    def decode(cls, result: Mapping[str, Any] | None, envelope: Envelope) -> Self:
        """The inverse of `encode`; without a result, an answer that says nothing."""
        result = result or {}
        said = envelope.open(result[ANSWER]) if ANSWER in result else {}
        report = said.pop("report", None)
        return cls(done=bool(result.get(DONE)), report=None if report is None else Report.of_document(report), **said)
