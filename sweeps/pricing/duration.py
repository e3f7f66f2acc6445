"""How long a sweep takes: from the seconds that an earlier sweep of the same space recorded, or from steps that were timed. It never
guesses."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from dpcore.errors import Corrupt
from sweeps.pricing.plan import SweepPlan
from sweeps.records.results import TrialRecord, read_results
from sweeps.terminal.lines import counted

if TYPE_CHECKING:
    from sweeps.records.spec import SweepSpec

SAME_WORK = ("trial", "search", "splits")
"""The sections of a space that decide what a trial computes. ε and the number of trials may differ."""

SAME_STOPPING = ("stopper", "stopping")

SAME_MACHINE = ("cpus_per_trial", "gpus_per_trial")


@dataclass(frozen=True, kw_only=True)
class Duration:
    """An estimate and its source.

    Attributes:
        trial_s: sum over all planned runs.
        at_a_time: how many runs run together; None if the cluster decides.
        source: name of the earlier sweep; None: steps were timed.
        measured: how many of its ended runs were averaged, or how many methods were timed.
        once_s: what is computed once for all runs, before most of them.
    """

    trial_s: float
    at_a_time: int | None
    source: str | None
    measured: int
    once_s: float = 0.0

    @property
    def wall_s(self) -> float:
        """The whole, where the runs go on together as planned."""
        return self.once_s + self.trial_s / (self.at_a_time or 1)

    def text(self) -> str:
        """One line for a person."""
        if self.source is None:
            slots = counted(self.at_a_time or 1, "slot")
            basis = f"some steps of {counted(self.measured, 'method')} timed here on PUBLIC people"
            return f"wall time: about {span(self.wall_s)} on {slots} at most ({basis})"
        basis = f"from {self.measured} ended runs of sweep {self.source}"
        if self.at_a_time is None:
            return f"wall time: about {span(self.trial_s)} of trials, divided by how many the cluster runs together ({basis})"
        each = span(self.trial_s / self.at_a_time)
        return f"wall time: about {each} of trials, {self.at_a_time} at a time, and the start of Ray and MLflow ({basis})"


def estimate_duration(spec: SweepSpec, plan: SweepPlan) -> Duration | None:
    """Estimates the time of `plan` from the latest sweep in the storage with the same space and resources per trial, if any.

    Raises:
        Corrupt: the spec or results of that sweep cannot be read.
    """
    source = _latest_alike(spec)
    if source is None:
        return None
    # Protected data have no recorded times.
    timed = [record for record in read_results(source).records if record.seconds > 0]
    ended = [record for record in timed if record.state == "done"]
    if not ended:
        return None
    typical = mean(record.seconds for record in ended)
    full = _mean_of(ended, "search", typical)
    search = _mean_of([record for record in timed if record.state in ("done", "pruned")], "search", typical)
    total = sum(_mean_of([record for record in ended if record.trial_id == name], None, typical) for name in plan.references)
    for group in plan.groups:
        total += group.trials * search
        total += group.reruns * _mean_of(ended, "seed", full) + group.control * _mean_of(ended, "control", full)
    return Duration(trial_s=total, at_a_time=at_a_time(spec), source=source.name, measured=len(ended))


def span(seconds: float) -> str:
    """`45 s`, `12 min` or `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _mean_of(records: list[TrialRecord], role: str | None, otherwise: float) -> float:
    seconds = [record.seconds for record in records if role is None or record.role == role]
    return mean(seconds) if seconds else otherwise


def _latest_alike(spec: SweepSpec) -> Path | None:
    """The folder of the sweep that was written last, among those with results that do the same work."""
    wanted = _identity(spec.model_dump(mode="json", by_alias=True))
    written = sorted(spec.storage_dir.glob("*/results/sweep.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    for results in written:
        folder = results.parents[1]
        if _identity(_read(folder / "spec.json")) == wanted:
            return folder
    return None


def _read(path: Path) -> dict[str, Any]:
    """A spec as plain JSON, so that a spec of an older version does not stop a plan."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); move its sweep out of the storage") from None
    return document if isinstance(document, dict) else {}


def _identity(document: dict[str, Any]) -> dict[str, Any]:
    space, runtime = document.get("space", {}), document.get("runtime", {})
    return {
        **{name: space.get(name) for name in SAME_WORK},
        **{name: space.get("sweep", {}).get(name) for name in SAME_STOPPING},
        **{name: document.get(name) for name in SAME_MACHINE},
        "device": runtime.get("device"),
    }


def at_a_time(spec: SweepSpec) -> int | None:
    """How many trials run together; None if the cluster decides."""
    if spec.max_concurrent is not None:
        return spec.max_concurrent
    if spec.address is not None or spec.gpus_per_trial:
        return None
    return max(1, int((os.cpu_count() or 1) / spec.cpus_per_trial))
