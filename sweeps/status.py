"""Where a sweep stands, read beside a running driver: nothing here writes."""

from __future__ import annotations

import fcntl
from collections import Counter
from typing import TYPE_CHECKING, Any

from sweeps.ledger import Ledger
from sweeps.pricing import dp_accountant, sweep_price, trials_at
from sweeps.spec import SELECTED, SweepSpec

if TYPE_CHECKING:
    from optuna.study import Study


def sweep_status(spec: SweepSpec) -> dict[str, Any]:
    """What `dpsweep status --json` prints: state, epsilons, sweep_epsilon.

    `state` is `running` while a driver holds the sweep's lock, `done` when the driver has written its results for every
    planned trial, else `interrupted` (`dpsweep resume` goes on). `sweep_epsilon` is None under `unaccounted`.
    """
    is_running = _driver_lives(spec)
    groups = [_group(spec, epsilon, is_running=is_running) for epsilon in spec.space.sweep.epsilons]
    is_complete = (spec.sweep_dir / "results" / "sweep.json").is_file() and all(
        group["done"] + group["pruned"] + group["failed"] >= group["planned"] for group in groups
    )
    state = "running" if is_running else "done" if is_complete else "interrupted"
    return {"state": state, "epsilons": groups, "sweep_epsilon": _price(spec)}


def _price(spec: SweepSpec) -> float | None:
    if spec.space.sweep.accounting == "unaccounted":
        return None
    ledger = Ledger(spec.resolved_ledger_url, must_exist=True, witness=spec.ledger_witness)
    return sweep_price(ledger, spec.name, spec.space.delta, dp_accountant())


def _group(spec: SweepSpec, epsilon: float, *, is_running: bool) -> dict[str, Any]:
    from optuna.trial import TrialState

    from sweeps.studies import is_replaced

    # A draw that TrialConfig refused never became a record: it is not counted. Neither is a trial that was replaced.
    study = _study(spec, epsilon)
    every = [] if study is None else study.get_trials(deepcopy=False)
    trials = [trial for trial in every if "record" in trial.user_attrs and not is_replaced(trial)]
    states = Counter(trial.state for trial in trials)
    scores = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    return {
        "epsilon": epsilon,
        "planned": _planned(spec, epsilon, found=len(trials)),
        "running": states[TrialState.RUNNING] if is_running else 0,
        "done": states[TrialState.COMPLETE],
        "pruned": states[TrialState.PRUNED],
        "failed": states[TrialState.FAIL],
        "best": max(scores, default=None),
    }


def _planned(spec: SweepSpec, epsilon: float, *, found: int) -> int:
    """Trials of the search; of a private selection the winner alone, or none where the selection is over without one."""
    if spec.space.sweep.selection is None:
        return trials_at(spec.space, epsilon)
    study = _study(spec, epsilon)
    return found if study is not None and study.user_attrs.get(SELECTED) else 1


def _study(spec: SweepSpec, epsilon: float) -> Study | None:
    import optuna
    from optuna.samplers import RandomSampler
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    if not spec.study_path.is_file():
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(spec.study_path)))
    name = f"{spec.name}/epsilon-{epsilon:g}"
    if name not in {study.study_name for study in storage.get_all_studies()}:
        return None
    return optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler())


def _driver_lives(spec: SweepSpec) -> bool:
    """Whether a process holds the sweep's lock."""
    path = spec.state_dir / "sweep.lock"
    if not path.is_file():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
