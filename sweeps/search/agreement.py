"""Holds the memories of a sweep against each other when it is taken up: no fact is believed that another memory contradicts.

| memory | remembers | lost or changed |
|---|---|---|
| study | each trial, its plan and its end; its score by step | refused: nothing else holds a trial's plan |
| reports.jsonl | each trial's curve | written back from the trial's folder, else refused |
| a trial's folder | its reports (`digests.jsonl`) and its last one (`result.json`) | refused where it says something else |
| results/ | what people read | written anew, unless it knows a trial that the study has forgotten |

What a trial spent is held against the ledger by `sweeps.pricing.reservations`. A trial that goes on repeats its reports, so only ended
ones are looked at. Folders in a bucket, and those of trial functions that keep other files, are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.durable import read_json
from dpcore.errors import BadInput, Corrupt
from dpcore.train.attempts import DIGESTS_FILE, RESULT_FILE, recorded_reports
from dpcore.train.reports import EPSILON_SPENT, NOISE_MULTIPLIER, Report
from sweeps.records.reports import ReportsFile
from sweeps.records.results import PCKH_10, PCKH_50, CurvePoint, TrialRecord, read_results
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import TrialId

if TYPE_CHECKING:
    from sweeps.search.studies import Studies

SCORES, SPENT = (PCKH_50, PCKH_10), (EPSILON_SPENT, NOISE_MULTIPLIER)
"""What is compared of a report. Its times may differ where a worker repeated a step."""
OF_RESULT = {"pckh_50": PCKH_50, "epsilon_spent": EPSILON_SPENT}
COPY = "put a copy of it back, then `dpsweep resume` again"

Line = tuple[str, int, CurvePoint]
Curves = dict[tuple[str, int], dict[int, CurvePoint]]


def agreed_reports(
    spec: SweepSpec,
    records: Iterable[TrialRecord],
    studies: Studies,
    reports: ReportsFile,
    *,
    difference: Callable[[TrialRecord, Report], str | None],
) -> list[Line]:
    """All reports of a sweep. Those that reports.jsonl lost and a trial's folder has are written back.

    Args:
        spec: the sweep.
        records: what the studies remember, whatever their curves.
        studies: remember each trial's score by step.
        reports: the file.
        difference: how a report differs from what was reserved for its trial; None where it does not.

    Raises:
        Corrupt: two memories differ, or one lost what cannot be restored. The message names the file.
    """
    known, lines = {record.trial_id: record for record in records}, list(reports.read())
    _refuse_forgotten(spec, known, lines)
    curves: Curves = {}
    for trial_id, attempt, point in lines:
        curves.setdefault((trial_id, attempt), {}).setdefault(point.step, point)
    for record in known.values():
        if not record.is_finished or record.is_sealed:
            continue
        scores, found = studies.scores(record.trial_id), curves.setdefault(record.run, {})
        for point in _lost_points(spec, record, found, scores, difference):
            reports.append(record, point)
            found[point.step] = point
            lines.append((*record.run, point))
        _check_against_study(spec, record, curves, studies)
        if record.state == "done" and _has_own_folder(spec, record):
            _check_result(spec, record, found[max(found)])
    return lines


def _has_own_folder(spec: SweepSpec, record: TrialRecord) -> bool:
    """Whether the trial's folder is here and says what its record says: the winner of a selection says what the selection spent."""
    return spec.bucket_uri is None and not (spec.space.sweep.regime.is_selection and record.role == "search")


def _refuse_forgotten(spec: SweepSpec, known: Mapping[str, TrialRecord], lines: Iterable[Line]) -> None:
    """A trial that reported or came out, and that no study knows: the study's end was lost. The winner of a selection reports first."""
    selects = spec.space.sweep.regime.is_selection
    told: dict[str, Path] = {
        trial_id: spec.reports_path for trial_id, _, _ in lines if not (selects and TrialId.parse(trial_id).kind == "search")
    }
    with suppress(BadInput, Corrupt):  # none yet, or damaged: they are written anew
        told |= {record.trial_id: spec.sweep_dir / "results" for record in read_results(spec.sweep_dir).records}
    for trial_id, where in told.items():
        if trial_id not in known:
            raise Corrupt(f"{spec.studies_at} does not know trial {trial_id}, of which {where} tells: it lost its end; {COPY}")


def _lost_points(
    spec: SweepSpec,
    record: TrialRecord,
    found: Mapping[int, CurvePoint],
    scores: Mapping[int, float],
    difference: Callable[[TrialRecord, Report], str | None],
) -> Iterator[CurvePoint]:
    """The reports of an ended trial that its folder has and reports.jsonl lost, after all others were compared.

    Raises:
        Corrupt: they differ.
    """
    if not _has_own_folder(spec, record):
        return
    folder = spec.checkpoint_dir(record.trial_id)
    attempt, recorded = recorded_reports(folder)
    if attempt != record.attempt:
        return
    last = max(recorded, default=0) if record.state == "done" else max(scores, default=0)
    for step, report in sorted(recorded.items()):
        point = CurvePoint.of(report.finite)
        if step in found:
            _check_equal(spec, record, found[step], point, folder / DIGESTS_FILE)
        elif step <= last and difference(record, report) is None:
            yield point


def _check_equal(spec: SweepSpec, record: TrialRecord, told: CurvePoint, recorded: CurvePoint, where: Path) -> None:
    said = (*SCORES, *(name for name in SPENT if name in recorded.metrics))  # 0.1.0 wrote no `spent` into a trial's folder
    names = [name for name in said if told.metrics.get(name) != recorded.metrics.get(name)]
    if told.weights_digest != recorded.weights_digest or names:
        raise Corrupt(
            f"{spec.reports_path} and {where} say different things of {record.trial_id} at step {told.step} "
            f"({', '.join(names) or 'the digest of its weights'}): one of the two was changed; {COPY}"
        )


def _check_result(spec: SweepSpec, record: TrialRecord, last: CurvePoint) -> None:
    """The result that a trial left, held against its last report."""
    path = spec.checkpoint_dir(record.trial_id) / RESULT_FILE
    result = read_json(path) if path.is_file() else None
    for name, metric in OF_RESULT.items() if path.is_file() else ():
        if not isinstance(result, dict) or result.get(name) != last.metrics.get(metric):
            raise Corrupt(
                f"{path} and {spec.reports_path} say different things of {name} of {record.trial_id}: one of the two was changed; {COPY}"
            )


def _check_against_study(spec: SweepSpec, record: TrialRecord, curves: Curves, studies: Studies) -> None:
    """Each score that the study has was reported, and what it ended with was its last.

    Raises:
        Corrupt: a report is missing, or the study has another score.
    """
    told = [curves.get((record.trial_id, attempt), {}) for attempt in range(record.attempt + 1)]
    for step, score in studies.scores(record.trial_id).items():
        if score not in [curve[step].metrics.get(record.metric_key) for curve in told if step in curve]:
            raise Corrupt(
                f"{spec.reports_path} has no report of {record.trial_id} at step {step} with the score {score:.6g} that {spec.studies_at} "
                f"remembers: one of the two lost it or was changed; {COPY}"
            )
    if record.state == "done":
        last, ended_with = max(told[-1].values(), key=lambda point: point.step, default=None), studies.final_score(record.trial_id)
        if last is None or last.metrics.get(record.metric_key) != ended_with:
            raise Corrupt(
                f"{spec.reports_path} does not have the last report of {record.trial_id}, which ended with the score {ended_with} that "
                f"{spec.studies_at} remembers; {COPY}"
            )
