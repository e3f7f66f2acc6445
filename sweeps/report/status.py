"""Reads how far a sweep is, also while its driver runs. It writes nothing except caches."""

from __future__ import annotations

import fcntl
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any

from dpcore.durable import read_json
from dpcore.errors import Corrupt
from sweeps.pricing.duration import at_a_time
from sweeps.pricing.plan import Accountant, dp_accountant, plan_sweep, planned_runs, sweep_price, trials_at
from sweeps.pricing.regimes import promise_of
from sweeps.records.charged import open_ledger
from sweeps.records.folder import is_unfinished
from sweeps.records.results import title_of
from sweeps.records.spec import SELECTED, SweepSpec
from sweeps.records.trial_id import study_of
from sweeps.search.reading import SeenState, SeenStudy, SeenTrial, read_studies
from sweeps.search.remembered import END, record_of
from sweeps.storage.heartbeat import Heartbeat
from sweeps.storage.ray_folder import LOCK_FILE

HANGS_AFTER_S = 30.0
"""More than the longest ended trial took, start of a worker included."""


def sweep_status(spec: SweepSpec, accountant: Accountant | None = None) -> dict[str, Any]:
    r"""What `dpsweep status --json` prints.

    | key | says |
    |---|---|
    | state | `running` while a driver runs trials; `finishing` from the last trial's end until report, registry and MLflow are complete; \
then `done`; `failed` if it ended before its plan, or with no search trial that worked; `interrupted` where trials are left and no \
driver runs them |
    | reason | why it failed; None in another state |
    | next | what to run where no driver works on it and something is left, else None |
    | epsilons | per ε: epsilon, planned, running, done, pruned, failed, best, leader (trial_id and method of the best) |
    | accounting | the regime |
    | metric | the title of what `best` is, such as PCKh@0.5 |
    | sweep_epsilon | ε that the sweep has reserved so far; None under `unaccounted` |
    | sweep_epsilon_planned | ε that it will have reserved at its end; None under `unaccounted` |
    | promise | to whom that ε is a promise: the unit, its neighbours, and what is public; None where no private data are read |
    | running | the trials on workers: trial_id, and silent_s since the last sign of life (None on protected data) |
    | driver | of a sweep that runs: host, pid, and silent_s since its last sign of life; None before its first |
    | seconds_left | estimate from the trials that have ended; None if it is unknown or must stay unknown (protected data) |
    """
    is_running = driver_lives(spec)
    studies = read_studies(spec)
    groups = [_group(spec, studies.get(study_of(epsilon)), epsilon, is_running=is_running) for epsilon in spec.space.sweep.epsilons]
    heartbeat, facts = Heartbeat.read(spec.state_dir) if is_running else None, _facts(spec)
    reason = None if is_running or facts is None else _why_failed(spec, facts, groups, studies)
    is_complete = facts is not None and _is_complete(spec, facts, studies, groups)
    state = "failed" if reason else _state(is_running=is_running, is_complete=is_complete, is_unfinished=is_unfinished(spec))
    spent, planned = _prices(spec, accountant or dp_accountant(spec.places.cache_dir))
    return {
        "state": state,
        "reason": reason,
        "next": _next(spec, state) if not is_running and state in ("interrupted", "finishing") else None,
        "accounting": spec.space.sweep.accounting,
        "metric": title_of(spec.metric),
        "epsilons": groups,
        "sweep_epsilon": spent,
        "sweep_epsilon_planned": planned,
        "promise": promise_of(spec.space).text() if spec.space.sweep.regime.reads_private else None,
        "running": [] if heartbeat is None else [{"trial_id": name, "silent_s": _since(at)} for name, at in heartbeat.trials.items()],
        "driver": None if heartbeat is None else {"host": heartbeat.host, "pid": heartbeat.pid, "silent_s": heartbeat.silent_s},
        "seconds_left": 0.0
        if state in ("done", "failed", "finishing")
        else _seconds_left(spec, [trial for study in studies.values() for trial in _counted(spec, study)], heartbeat),
    }


def _facts(spec: SweepSpec) -> dict[str, Any] | None:
    """What the results say of the sweep; None where there are none yet, or where they are damaged: a resume writes them anew."""
    try:
        found = read_json(spec.sweep_dir / "results" / "sweep.json")
    except Corrupt:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("planned"), int) else None


def _are_over(groups: Sequence[dict[str, Any]]) -> bool:
    return all(group["done"] + group["pruned"] + group["failed"] >= group["planned"] for group in groups)


def _why_failed(spec: SweepSpec, facts: dict[str, Any], groups: Sequence[dict[str, Any]], studies: dict[str, SeenStudy]) -> str | None:
    """Why a sweep whose driver has ended did not come to its plan, or came to nothing; None where neither is so."""
    stopped_by: str | None = facts.get("stopped_by")
    if stopped_by is not None or not _are_over(groups) or any(group["best"] is not None for group in groups):
        return stopped_by
    errors = [
        error for study in studies.values() for trial in _counted(spec, study) if (error := trial.user_attrs.get(END, {}).get("error"))
    ]
    return "no private trial came to its end" + (f": {len(errors)} failed, the last with {errors[-1]}" if errors else "")


def _is_complete(spec: SweepSpec, facts: dict[str, Any], studies: dict[str, SeenStudy], groups: Sequence[dict[str, Any]]) -> bool:
    """Whether every planned run has ended: the search, and what the driver planned after it."""
    ended = sum(trial.state.is_finished for study in studies.values() for trial in _counted(spec, study))
    return ended >= facts["planned"] and _are_over(groups)


def _state(*, is_running: bool, is_complete: bool, is_unfinished: bool) -> str:
    if is_complete and is_unfinished:
        return "finishing"
    return "running" if is_running else "done" if is_complete else "interrupted"


def _next(spec: SweepSpec, state: str) -> str:
    """What a person is to run, and why."""
    command = shlex.join(["dpsweep", "resume", spec.name, "--storage", str(spec.storage)])
    if state == "interrupted":
        return f"no driver runs it: `{command}` goes on"
    return f"all trials have ended, and its driver before report, registry and MLflow were complete: `{command}` completes them"


def _prices(spec: SweepSpec, accountant: Accountant) -> tuple[float | None, float | None]:
    """ε reserved so far, and ε reserved at the end of the plan."""
    if not spec.space.sweep.regime.is_promise:
        return None, None
    ledger = open_ledger(spec, read_only=True)
    planned = plan_sweep(spec.space, accountant, cache_dir=spec.places.cache_dir).sweep_epsilon
    return sweep_price(ledger, spec.name, spec.space.delta, accountant), planned


def _since(at: float | None) -> float | None:
    return None if at is None else max(0.0, time.time() - at)


def _seconds_left(spec: SweepSpec, trials: Sequence[SeenTrial], heartbeat: Heartbeat | None) -> float | None:
    """Time for the remaining runs, if each takes as long as the ended ones and as many run at a time as now. None where a trial has said
    nothing for longer than ended ones took: it may hang."""
    seconds: list[float] = [trial.user_attrs[END]["seconds"] for trial in trials if trial.state.is_finished and END in trial.user_attrs]
    timed = [one for one in seconds if one > 0]
    slots = sum(trial.state == SeenState.RUNNING for trial in trials) or at_a_time(spec)
    if not timed or slots is None or spec.space.sweep.regime.is_selection:
        return None
    silences = [] if heartbeat is None else [_since(at) or 0.0 for at in heartbeat.trials.values()]
    if max(silences, default=0.0) > HANGS_AFTER_S + max(timed):
        return None
    left = max(0, planned_runs(spec.space) - len(seconds))
    return mean(timed) * left / slots


def _group(spec: SweepSpec, study: SeenStudy | None, epsilon: float, *, is_running: bool) -> dict[str, Any]:
    trials = [] if study is None else _counted(spec, study)
    states = Counter(trial.state for trial in trials)
    complete = [trial for trial in trials if trial.state == SeenState.COMPLETE and trial.value is not None]
    best = max(complete, key=lambda trial: trial.value or 0.0, default=None)
    return {
        "epsilon": epsilon,
        "planned": _planned(spec, study, epsilon),
        "running": states[SeenState.RUNNING] if is_running else 0,
        "done": states[SeenState.COMPLETE],
        "pruned": states[SeenState.PRUNED],
        "failed": states[SeenState.FAIL],
        "best": None if best is None else best.value,
        "leader": None if best is None else _leader(best, where=spec.studies_at),
    }


def _leader(trial: SeenTrial, *, where: str) -> dict[str, str]:
    record = record_of(trial, where=where)
    return {"trial_id": record.trial_id, "method": record.config.method}


def _planned(spec: SweepSpec, study: SeenStudy | None, epsilon: float) -> int:
    """Number of search trials. A private selection counts only its winner, or nothing if it ended without one."""
    if not spec.space.sweep.regime.is_selection:
        return trials_at(spec.space, epsilon)
    return len(_counted(spec, study)) if study is not None and study.user_attrs.get(SELECTED) else 1


def _counted(spec: SweepSpec, study: SeenStudy) -> list[SeenTrial]:
    """The trials that count: no draws that TrialConfig refused (they have no record), and no trials that were replaced."""
    return study.counted(set_aside=spec.set_aside, where=spec.studies_at)


def driver_lives(spec: SweepSpec) -> bool:
    """Whether a process holds the sweep's lock."""
    path = spec.state_dir / LOCK_FILE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
