"""Training from best.yaml: a new private run that is charged, or the very same release again.

| | fresh (default) | `--replay` |
|---|---|---|
| key, trial id | new | the trial's own |
| ledger | a new reservation before the first step | no line: the same release |
| result | other weights, under the same claim | bit for bit the recorded weights, or an error and no file |
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpcore.config import Places, TrialConfig
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.composition import price
from dpcore.privacy.randomness import SweepKey
from dpcore.train.checkpoint import IDENTITY_FILE as TRIAL_IDENTITY_FILE
from dpcore.train.checkpoint import RESULT_FILE
from dpcore.train.reports import Report
from dpcore.train.trainer import run_trial
from sweeps.export import ExportedConfig
from sweeps.ledger import Ledger, Reservation
from sweeps.results import TrialRecord, read_results
from sweeps.spec import SweepSpec, write_atomically

IDENTITY_FILE = "train.json"
KEY_FILE = "train.key"
COMMAND = "train"
RESULT_KEYS = ("epsilon_target", "epsilon_spent", "delta", "method", "pckh_50", "pckh_10", "trial_id", "fingerprint")


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A checked request.

    Attributes:
        exported: what best.yaml says.
        spec: the sweep it came from; None when there is no such sweep (any more) and `ledger_url` was given.
        places: where datasets and caches are.
        out: folder of the new model.
        ledger_url: a ledger given on purpose; None charges the sweep's.
    """

    exported: ExportedConfig
    spec: SweepSpec | None
    places: Places
    out: Path
    ledger_url: str | None

    @property
    def config(self) -> TrialConfig:
        """The trial's settings."""
        return self.exported.config


def origin_spec(exported: ExportedConfig, *, needed: bool) -> SweepSpec | None:
    """The sweep that the config came from; None if it cannot be reached and is not needed.

    Raises:
        Unavailable: it is needed and its folder is not there.
    """
    origin = exported.origin
    if origin is None:
        if needed:
            raise Unavailable("the config names no origin, so there is no ledger to charge; --ledger URL names one on purpose")
        return None
    try:
        return SweepSpec.load(origin.sweep, origin.storage)
    except BadInput:
        if not needed:
            return None
        raise Unavailable(
            f"the sweep {origin.sweep} is not in {origin.storage}, so its ledger and key can't be reached; "
            "bring the folder back, or give --ledger URL to charge another ledger on purpose (a replay needs the folder)"
        ) from None


def train_fresh(request: TrainRequest, *, resume: bool) -> dict[str, Any]:
    """Trains with fresh noise into `request.out`, after its whole planned spending is in the ledger.

    A resume finds trial id and key in the folder, so it replays under the reservation that stands; no new charge. At the
    end the key is removed: whoever is given the folder with it could take the noise off the weights.

    Returns:
        The result as `--json` prints it.

    Raises:
        Refused: the folder exists (or, resuming, is of another config), or the cap on ε would be passed.
        Unavailable: the ledger can't be reached.
        BadInput: resuming where nothing was begun.
    """
    ended = _ended_result(request) if resume else None
    if ended is not None:
        return ended
    ledger = None
    if request.config.spends_privacy:
        ledger = _open_ledger(request)
    trial_id, key = _continue_in(request) if resume else (f"{COMMAND}-{uuid.uuid4().hex[:12]}", SweepKey.fresh())
    reservation = None if ledger is None else _reservation(request, trial_id, key)
    if not resume and request.out.exists():
        raise Refused(f"{request.out} exists already: --resume continues it, or give --out another folder")
    if ledger is not None and reservation is not None:
        cap = None if request.spec is None else request.spec.space.sweep.epsilon_total
        ledger.reserve(reservation, cap=cap, compose=price)
    if not resume:
        _begin(request, trial_id, key)
    last = _run(request, trial_id=trial_id, key=key, folder=request.out, attempt=0, expected={})
    if ledger is not None and reservation is not None:
        ledger.settle(reservation, steps_done=last.step, outcome="done")
    (request.out / KEY_FILE).unlink()
    return _result(request.config, trial_id, last)


def _ended_result(request: TrainRequest) -> dict[str, Any] | None:
    """What a training that came to its very end (its key is gone) wrote down; None where there is something to do."""
    path = request.out / RESULT_FILE
    if not path.is_file() or (request.out / KEY_FILE).exists():
        return None
    _read_identity(request)
    recorded = json.loads(path.read_text())
    return {name: recorded[name] for name in RESULT_KEYS}


def _open_ledger(request: TrainRequest) -> Ledger:
    if request.ledger_url is not None:
        return Ledger(request.ledger_url)
    if request.spec is None:
        raise Unavailable("there is no ledger to charge; --ledger URL names one on purpose")
    return Ledger(request.spec.resolved_ledger_url, must_exist=True, witness=request.spec.ledger_witness)


def _reservation(request: TrainRequest, trial_id: str, key: SweepKey) -> Reservation:
    from dpcore.data.catalog import open_dataset

    plan = plan_privacy(request.config, request.places.cache_dir)
    if plan is None:
        raise BadInput(f"method {request.config.method} spends nothing, so there is nothing to reserve")
    cohort = open_dataset(request.config.data.private, request.places).members.cohort
    return Reservation(
        sweep=COMMAND if request.exported.origin is None else f"{COMMAND} {request.exported.origin.sweep}",
        trial_id=trial_id,
        dataset=request.config.data.private,
        cohort=cohort,
        sampling_prob=plan.sampling_prob,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.steps,
        relation=plan.relation,
        epsilon=plan.epsilon_planned,
        delta=plan.delta,
        fingerprint=request.config.fingerprint(),
        key_id=key.key_id(),
    )


def _begin(request: TrainRequest, trial_id: str, key: SweepKey) -> None:
    request.out.mkdir(parents=True)
    key.save(request.out / KEY_FILE)
    identity = {"trial_id": trial_id, "exported": request.exported.model_dump(mode="json")}
    write_atomically(request.out / IDENTITY_FILE, json.dumps(identity, indent=2).encode())


def _continue_in(request: TrainRequest) -> tuple[str, SweepKey]:
    return _read_identity(request), SweepKey.load(request.out / KEY_FILE)


def _read_identity(request: TrainRequest) -> str:
    """The trial id of the training that was begun in the folder, with this very config."""
    path = request.out / IDENTITY_FILE
    if not path.is_file():
        raise BadInput(f"{request.out}: nothing to resume there (no {IDENTITY_FILE}); leave --resume out to begin")
    identity = json.loads(path.read_text())
    if identity["exported"] != request.exported.model_dump(mode="json"):
        raise Refused(f"{request.out} was begun with another config; give the config of then, or --out another folder")
    return str(identity["trial_id"])


def train_replay(request: TrainRequest, *, keep: bool) -> dict[str, Any]:
    """Runs the recorded trial again and compares every report's weight digest with the recorded one.

    Args:
        request: `out` takes the model if `keep`.
        keep: whether to write the model.

    Raises:
        Refused: the config is not the trial's, the folder exists, or a digest differs: nothing is written then.
        Unavailable: the sweep key is not there.
    """
    spec, origin = request.spec, request.exported.origin
    if spec is None or origin is None:
        raise Unavailable("a replay needs the sweep that the config came from: its key and its recorded digests")
    if keep and request.out.exists():
        raise Refused(f"{request.out} exists already and is not overwritten; give --out another folder")
    record = read_results(spec.sweep_dir).trial(origin.trial_id)
    if record.fingerprint != request.config.fingerprint() or record.fingerprint != origin.fingerprint:
        raise Refused(
            f"the config was changed since trial {origin.trial_id}: that is a new private run; leave --replay out and it is charged"
        )
    key = SweepKey.load(spec.key_path)
    parent = request.out.absolute().parent if keep else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".dpsweep-replay-") as temporary:
        folder = Path(temporary) / "trial"
        _take_identity(spec.checkpoint_dir(record.trial_id, record.attempt), folder)
        expected = {point.step: point.weights_digest for point in record.curve}
        last = _run(request, trial_id=record.trial_id, key=key, folder=folder, attempt=record.attempt, expected=expected)
        _check_score(record, last)
        if keep:
            shutil.move(folder, request.out)
    return _result(request.config, record.trial_id, last)


def _take_identity(recorded: Path, folder: Path) -> None:
    """Lets the trainer hold data, starting weights, libraries and machine against the recorded ones before its first step:
    two runs with one noise and different sums would reveal their difference."""
    identity = recorded / TRIAL_IDENTITY_FILE
    if identity.is_file():
        folder.mkdir()
        shutil.copyfile(identity, folder / TRIAL_IDENTITY_FILE)


def _run(request: TrainRequest, *, trial_id: str, key: SweepKey, folder: Path, attempt: int, expected: dict[int, str]) -> Report:
    last: Report | None = None
    reports = run_trial(
        request.config, request.exported.runtime, places=request.places, trial_id=trial_id, key=key, folder=folder, attempt=attempt
    )
    for last in reports:
        if last.step in expected and last.weights_digest != expected[last.step]:
            raise Refused(
                f"the replay reached weights {last.weights_digest} at step {last.step}, recorded are {expected[last.step]}: this machine "
                "does not repeat the trial bit for bit; nothing was written. Without --replay a new private run is charged"
            )
        print(f"{trial_id}: step {last.step}, PCKh@0.5 {100 * last.metrics['val/pckh_50']:.2f} %", file=sys.stderr)
    if last is None:
        raise Refused(f"trial {trial_id} ended without a report")
    return last


def _check_score(record: TrialRecord, last: Report) -> None:
    if not last.done or last.metrics["val/pckh_50"] != record.pckh_50:
        raise Refused(f"the replay ended with PCKh@0.5 {last.metrics['val/pckh_50']}, recorded is {record.pckh_50}; nothing was written")


def _result(config: TrialConfig, trial_id: str, last: Report) -> dict[str, Any]:
    return {
        "epsilon_target": config.epsilon if config.spends_privacy else None,
        "epsilon_spent": last.metrics.get("privacy/epsilon_spent", 0.0 if config.method != "nonprivate" else None),
        "delta": config.delta if config.spends_privacy else None,
        "method": config.method,
        "pckh_50": last.metrics["val/pckh_50"],
        "pckh_10": last.metrics["val/pckh_10"],
        "trial_id": trial_id,
        "fingerprint": config.fingerprint(),
    }
