"""The results of a sweep: one record per trial, stored as Parquet tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpcore.config import TrialConfig, parse_config
from dpcore.config.metrics import METRICS
from dpcore.config.metrics import PCKH_50 as _PCKH_50
from dpcore.durable import OWNER_ONLY, replace_file
from dpcore.errors import BadInput, Corrupt
from dpcore.privacy.plan import Spending
from dpcore.train.attempts import Attempt
from dpcore.train.reports import EPSILON_SPENT, NOISE_MULTIPLIER, Report

if TYPE_CHECKING:
    from dpcore.privacy.plan import PrivacyPlan

Role = Literal["search", "floor", "ceiling", "sealed_ceiling", "control", "seed"]
State = Literal["planned", "running", "done", "pruned", "failed"]
PCKH_50, PCKH_10 = "val/pckh_50", "val/pckh_10"


@dataclass(frozen=True)
class CurvePoint:
    """One report of a trial as the driver received it.

    Attributes:
        step: private steps done.
        metrics: name → value. ε = ∞ is absent, never a number.
        weights_digest: digest of the released weights at that step.
    """

    step: int
    metrics: dict[str, float]
    weights_digest: str = ""

    @classmethod
    def of(cls, report: Report) -> CurvePoint:
        """A worker's report as a point of its trial's curve. What was spent is what `report.spent` says, which the plan was held
        against, whatever the metrics say."""
        told = {name: value for name, value in report.metrics.items() if name not in (EPSILON_SPENT, NOISE_MULTIPLIER)}
        if report.spent is not None:
            told |= {EPSILON_SPENT: report.spent.epsilon, NOISE_MULTIPLIER: report.spent.noise_multiplier}
        return cls(report.step, told, report.weights_digest)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """The record of one trial, from its plan to its end.

    Attributes:
        trial_id: "e0.8-003" (search), "floor-blur_10", "ceiling", "control-e0.8", "seed-e0.8-1".
        epsilon: the target of its group; None for floor and ceiling.
        number: running number within its group, from 0.
        state: `pruned` means stopped early. Its scores are those of its last report, and it never wins.
        pckh_50, pckh_10: fractions; None before the first report, and where the validation data give none.
        metric: what the sweep maximises; its value is `score`.
        epsilon_spent: 0.0 if nothing private was read; None for the ceiling, whose ε is infinite, and where it is not known. Of a private
            selection's winner that of the selection. For a pruned trial it covers the steps that were done. That is only information:
            the trial's claim is its whole reservation.
        steps: private steps done.
        seconds: wall time on its workers, from hand-out to end.
        plan: what its steps spend, fixed when it was reserved. A rehearsal has the plan of the private run that it stands for. None if no
            noise is added, and in records that were read from tables.
        fulfilled: False if something else ran than was reserved: the claim is void, the reservation stays charged.
        fingerprint: fingerprint of the config.
        attempt: 0 unless a retry could not replay; from_step: the checkpoint that a later attempt went on from;
            physical_batch_size: of a later attempt, None unless memory ran out in an earlier one.
    """

    trial_id: str
    role: Role
    number: int
    config: TrialConfig
    epsilon: float | None = None
    state: State = "planned"
    attempt: int = 0
    from_step: int = 0
    physical_batch_size: int | None = None
    pckh_50: float | None = None
    pckh_10: float | None = None
    metric: str = _PCKH_50
    epsilon_spent: float | None = None
    delta: float | None = None
    noise_multiplier: float | None = None
    sampling_prob: float | None = None
    steps: int = 0
    seconds: float = 0.0
    error: str | None = None
    plan: PrivacyPlan | None = field(default=None, compare=False)
    fulfilled: bool = True
    curve: tuple[CurvePoint, ...] = ()

    @property
    def fingerprint(self) -> str:
        """64 bits over the config, equal for trials that train the same weights."""
        return self.config.fingerprint()

    @property
    def score(self) -> float | None:
        """The sweep's metric in the last report, as a fraction; None where it is no number."""
        if self.metric in ("pckh_50", "pckh_10"):
            known: float | None = getattr(self, self.metric)
            return known
        value = self.curve[-1].metrics.get(self.metric_key, math.nan) if self.curve else math.nan
        return value if math.isfinite(value) else None

    @property
    def metric_key(self) -> str:
        """The name of the sweep's metric in a report."""
        return f"val/{self.metric}"

    @property
    def split(self) -> str | None:
        """The name of the public view that it reads."""
        return None if self.config.split is None else self.config.split.name

    @property
    def run(self) -> tuple[str, int]:
        """The run's identity in the ledger."""
        return self.trial_id, self.attempt

    @property
    def current_attempt(self) -> Attempt:
        """The attempt, as the trial's worker needs it."""
        return Attempt(number=self.attempt, from_step=self.from_step, physical_batch_size=self.physical_batch_size)

    def at_attempt(self, attempt: Attempt) -> TrialRecord:
        """The same record with another attempt."""
        return replace(self, attempt=attempt.number, from_step=attempt.from_step, physical_batch_size=attempt.physical_batch_size)

    @property
    def reserved(self) -> PrivacyPlan | None:
        """What stands in the ledger for it; None where it spends nothing."""
        return self.plan if self.config.spends_privacy else None

    @property
    def spending(self) -> Spending | None:
        """The releases of its whole horizon, also of a record that was read from tables; None where it spends nothing."""
        if not self.config.spends_privacy or self.sampling_prob is None or self.noise_multiplier is None:
            return None
        return Spending(self.sampling_prob, self.noise_multiplier, self.config.stages.private.steps, self.config.relation)

    @property
    def at_epsilon(self) -> float:
        """The ε of a trial that has one."""
        if self.epsilon is None:
            raise RuntimeError(f"{self.trial_id} is searched at no epsilon")
        return self.epsilon

    @property
    def is_sealed(self) -> bool:
        """Whether nothing of it may be shown but that it was run."""
        return self.role == "sealed_ceiling"

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ("done", "pruned", "failed")

    def with_point(self, point: CurvePoint) -> TrialRecord:
        """The record after a report. A step that it already has (a replay) changes nothing."""
        if self.curve and point.step <= self.curve[-1].step:
            return self
        return replace(self, state="running", steps=point.step, curve=(*self.curve, point), **_scores(point.metrics))

    def ended(self, *, seconds: float, error: str | None = None, stopped: bool = False, fulfilled: bool = True) -> TrialRecord:
        """The record at its end: done, stopped early, or failed with the reason. A NaN score is a failure. A record that is not
        `fulfilled` has failed, and what it spent is not known."""
        if not fulfilled:
            return replace(self, state="failed", seconds=seconds, error=error, fulfilled=False, epsilon_spent=None)
        if stopped and error is None:
            return replace(self, state="pruned", seconds=seconds, error=None)
        if error is None and self.score is None and not self.is_sealed:
            error = f"{self.metric_key} is no number: the weights diverged; try a smaller learning rate"
        return replace(self, state="done" if error is None else "failed", seconds=seconds, error=error)


def _scores(metrics: dict[str, float]) -> dict[str, Any]:
    """The scores of a report. A missing or NaN PCKh becomes None: the weights of that step have no score."""
    named = {EPSILON_SPENT: "epsilon_spent", NOISE_MULTIPLIER: "noise_multiplier"}
    scores: dict[str, Any] = {target: metrics[metric] for metric, target in named.items() if metric in metrics}
    for metric, target in ((PCKH_50, "pckh_50"), (PCKH_10, "pckh_10")):
        value = metrics.get(metric, math.nan)
        scores[target] = value if math.isfinite(value) else None
    return scores


@dataclass(frozen=True)
class SweepResults:
    """All records of a sweep, with the price of the sweep.

    Attributes:
        records: in the order of hand-out.
        accounting: the regime.
        sweep_epsilon: its price at `delta`; None under `unaccounted`.
        composed_epsilon: ε of everything that the sweep reserved. Under `unaccounted`, what `composed` would have cost. Infinite once a
            sealed ceiling was shown. None while the sweep runs, because composing takes seconds and the ledger can tell it.
        stopped_by: why the sweep ended before its plan, or None.
        protected: whether the private data belongs to real people (False: stand-in, ε as it would be).
    """

    name: str
    records: tuple[TrialRecord, ...]
    accounting: str
    delta: float
    sweep_epsilon: float | None = None
    composed_epsilon: float | None = None
    planned: int = 0
    stopped_by: str | None = None
    protected: bool = False

    @property
    def metric(self) -> str:
        """What the search maximised."""
        return self.records[0].metric if self.records else _PCKH_50

    @property
    def metric_title(self) -> str:
        """The metric for tables and figures."""
        return title_of(self.metric)

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The ε of the search, in the order of the sweep."""
        return tuple(dict.fromkeys(r.epsilon for r in self.records if r.epsilon is not None))

    def of_role(self, role: Role, epsilon: float | None = None) -> tuple[TrialRecord, ...]:
        """The records of a role, at one ε if given."""
        return tuple(r for r in self.records if r.role == role and (epsilon is None or r.epsilon == epsilon))

    def best(self, epsilon: float) -> TrialRecord | None:
        """The finished search trial with the highest score at `epsilon`. Among equal ones, the first."""
        return best_of(self.of_role("search", epsilon))

    @property
    def floors(self) -> tuple[TrialRecord, ...]:
        """The public start, and training on the public views of each split."""
        return self.of_role("floor")

    @property
    def ceilings(self) -> tuple[TrialRecord, ...]:
        """The run without privacy."""
        return self.of_role("ceiling")

    @property
    def controls(self) -> tuple[TrialRecord, ...]:
        """The best feature run of each ε with its private part switched off."""
        return self.of_role("control")

    def seeds(self, epsilon: float) -> tuple[TrialRecord, ...]:
        """The reruns of the winner with fresh seeds and noise; those of an earlier winner, before a sweep was extended, are not among
        them."""
        winner = self.best(epsilon)
        found = self.of_role("seed", epsilon)
        return found if winner is None else tuple(record for record in found if record.config == winner.config)

    def trial(self, trial_id: str) -> TrialRecord:
        """The record of a trial.

        Raises:
            BadInput: there is none.
        """
        for record in self.records:
            if record.trial_id == trial_id:
                return record
        raise BadInput(f"sweep {self.name} has no trial {trial_id}")

    def trial_table(self) -> Any:
        """trials.parquet as a pyarrow table: one row per record."""
        import pyarrow as pa

        return pa.Table.from_pylist([_row(r) for r in self.records], schema=_trial_schema())

    def curve_table(self) -> Any:
        """curves.parquet as a pyarrow table: one row per record, step and metric."""
        import pyarrow as pa

        return pa.Table.from_pylist([row for record in self.records for row in _curve_rows(record)], schema=_curve_schema())

    def write_parquet(self, folder: Path) -> None:
        """Writes trials.parquet, curves.parquet and sweep.json below `folder`, each whole or not at all."""
        _write_table(folder / "trials.parquet", self.trial_table())
        _write_table(folder / "curves.parquet", self.curve_table())
        prices = () if self.composed_epsilon is None else ("sweep_epsilon", "composed_epsilon")
        facts = {k: getattr(self, k) for k in ("name", "accounting", "delta", *prices, "planned", "stopped_by", "protected")}
        facts = {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in facts.items()}  # JSON has no infinity
        replace_file(folder / "sweep.json", json.dumps(facts, indent=2, allow_nan=False).encode(), mode=OWNER_ONLY)


def title_of(metric: str) -> str:
    """A metric for tables and figures; its name where the package that brought it is gone."""
    known = METRICS.find(metric)
    return metric if known is None else known.shown


def best_of(records: Iterable[TrialRecord], *, feature_only: bool = False) -> TrialRecord | None:
    """The done record with the highest score; among equal ones, the first. `feature_only` keeps only feature methods."""
    done = [r for r in records if r.state == "done" and r.score is not None]
    if feature_only:
        done = [r for r in done if r.config.traits.uses_views and r.config.public_weight]
    return max(done, key=lambda r: r.score or 0.0, default=None)


def read_results(sweep_dir: Path) -> SweepResults:
    """The results of a sweep's folder (its `results/`).

    Raises:
        BadInput: there are no results yet.
        Corrupt: a table cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = sweep_dir / "results"
    if not (folder / "sweep.json").is_file():
        raise BadInput(f"no results in {sweep_dir} yet; `dpsweep status` shows how far the sweep is")
    try:
        facts = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
        rows = pq.read_table(folder / "trials.parquet").to_pylist()
        points = pq.read_table(folder / "curves.parquet").to_pylist()
    except (pa.ArrowException, ValueError, OSError) as error:
        raise Corrupt(f"results in {folder} cannot be read ({error}); `dpsweep resume` writes them again") from None
    if facts.get("composed_epsilon", 0.0) is None:
        facts["composed_epsilon"] = math.inf
    curves: dict[str, dict[int, CurvePoint]] = {}
    for point in points:
        at = curves.setdefault(point["trial_id"], {}).setdefault(point["step"], CurvePoint(point["step"], {}, point["weights_digest"]))
        at.metrics[point["metric"]] = point["value"]
    return SweepResults(records=tuple(_record(row, curves.get(row["trial_id"], {})) for row in rows), **facts)


def _row(record: TrialRecord) -> dict[str, Any]:
    config = record.config
    shown = {
        "method": config.method,
        "split": record.split,
        "start": config.start,
        "clip_norm": config.clip_norm,
        "learning_rate": config.optimizer.learning_rate,
        "rank": None if config.subspace.rank is None else str(config.subspace.rank),
        "public_weight": config.public_weight,
        "private_weight": config.private_weight,
    }
    plain = {name: getattr(record, name) for name in _trial_schema().names if hasattr(record, name) and name not in ("config", *shown)}
    return {**plain, **shown, "config": config.model_dump_json()}


def _record(row: dict[str, Any], curve: dict[int, CurvePoint]) -> TrialRecord:
    fields = {name: row[name] for name in row if name in TrialRecord.__dataclass_fields__ and name != "config"}
    points: Sequence[CurvePoint] = [curve[step] for step in sorted(curve)]
    return TrialRecord(config=parse_config(TrialConfig, json.loads(row["config"])), curve=tuple(points), **fields)


def _curve_rows(record: TrialRecord) -> Iterable[dict[str, Any]]:
    for point in record.curve:
        for metric, value in point.metrics.items():
            yield {
                "trial_id": record.trial_id,
                "step": point.step,
                "metric": metric,
                "value": value,
                "weights_digest": point.weights_digest,
            }


def _trial_schema() -> Any:
    import pyarrow as pa

    texts = ("trial_id", "role", "state", "fingerprint", "method", "split", "start", "rank", "metric", "error", "config")
    whole = ("number", "attempt", "from_step", "physical_batch_size", "steps")
    real = ("epsilon", "pckh_50", "pckh_10", "score", "epsilon_spent", "delta", "noise_multiplier", "sampling_prob", "seconds")
    shown = ("clip_norm", "learning_rate", "public_weight", "private_weight")
    flags = [("fulfilled", pa.bool_())]
    return pa.schema(
        [*flags, *((n, pa.string()) for n in texts), *((n, pa.int64()) for n in whole), *((n, pa.float64()) for n in (*real, *shown))]
    )


def _curve_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [("trial_id", pa.string()), ("step", pa.int64()), ("metric", pa.string()), ("value", pa.float64()), ("weights_digest", pa.string())]
    )


def _write_table(path: Path, table: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    replace_file(path, sink.getvalue().to_pybytes(), mode=OWNER_ONLY)
