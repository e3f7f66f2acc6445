"""What a sweep or one of its trials said: `dpsweep logs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dpcore.errors import BadInput
from dpcore.words import did_you_mean
from sweeps.records.results import title_of
from sweeps.report.text import number, percent
from sweeps.terminal.tables import render_table

if TYPE_CHECKING:
    from sweeps.records.results import SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec


def said_by_sweep(spec: SweepSpec) -> Iterator[str]:
    """The lines of the sweep's log: what its driver told the terminal. Then where the words of libraries are.

    Raises:
        BadInput: no driver has written one yet, or it was begun by dpsweep 0.2.0 or earlier, which kept none.
    """
    if not spec.log_path.is_file():
        raise BadInput(f"sweep {spec.name} has no log yet ({spec.log_path}); `dpsweep status {spec.name}` shows how far it is")
    yield from spec.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    if spec.noise_path.is_file():
        yield f"what libraries said: {spec.noise_path}"


def said_by_trial(found: SweepResults, trial_id: str) -> Iterator[str]:
    """A trial's state, its settings and its reports, as the tables may show them: of protected data without times.

    Raises:
        BadInput: there is no such trial, or it is sealed.
    """
    known = {record.trial_id: record for record in found.records}
    record = known.get(trial_id)
    if record is None:
        raise BadInput(f"sweep {found.name} has no trial {trial_id}{did_you_mean(trial_id, known)}")
    if record.is_sealed:
        raise BadInput(f"{trial_id} is sealed: nothing of it is shown but that it was run")
    yield from _facts(record)
    points = [[f"{point.step}", "", percent(point.metrics.get(record.metric_key), 2), _spent(point.metrics)] for point in record.curve]
    if points:
        yield ""
        yield render_table(["step", "", f"{title_of(record.metric)} %", "ε spent"], points)


def _facts(record: TrialRecord) -> Iterator[str]:
    attempt = f", attempt {record.attempt} from step {record.from_step}" if record.attempt else ""
    seconds = f", {record.seconds:.0f} s" if record.seconds else ""
    yield f"trial {record.trial_id}: {record.state}{attempt}{seconds}"
    if record.error is not None:
        yield f"error: {record.error}"
    yield f"method {record.config.method}, config {record.fingerprint}"
    for name in ("clip_norm", "public_weight", "private_weight", "ema_decay"):
        value = getattr(record.config, name)
        if value is not None:
            yield f"{name} {value:.4g}"
    yield f"optimizer {record.config.optimizer.name}, learning rate {record.config.optimizer.learning_rate:.4g}"
    if record.config.subspace.rank is not None:
        yield f"subspace.rank {record.config.subspace.rank}"


def _spent(metrics: dict[str, float]) -> str:
    return number(metrics.get("privacy/epsilon_spent"))
