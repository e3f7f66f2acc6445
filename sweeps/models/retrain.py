"""Trains from best.yaml: a new private run that is charged, or exactly the same release again.

| | key, trial id | ledger | result |
|---|---|---|---|
| fresh (default) | new | a new reservation before the first step | other weights, under the same claim |
| `--resume` | the folder's own | no line: its reservation remains | those of the undisturbed run, or an error |
| `--resume --new-attempt` | the folder's own, or a new key if it is lost | the steps from the checkpoint on, again | as fresh |
| `--replay` | the trial's own | no line: the same release | bit for bit the recorded weights, or an error and no file |
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from dpcore.config import Places, TrialConfig, parse_config
from dpcore.config.scored_people import ScoredPeople
from dpcore.data.folders import PRIVATE_MODE, new_folder
from dpcore.disk import naming_full_disk
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, NotAsPlanned, NotReplayable, OutOfMemory, Refused, Unavailable
from dpcore.privacy.accounting import epsilon_spent, plan_privacy
from dpcore.privacy.claim import PrivacyClaim
from dpcore.privacy.composition import price
from dpcore.privacy.plan import PrivacyPlan, check_spent
from dpcore.privacy.randomness import SweepKey
from dpcore.train.attempts import FIRST, RESULT_FILE, Attempt
from dpcore.train.attempts import IDENTITY_FILE as TRIAL_IDENTITY_FILE
from dpcore.train.handout import Handout
from dpcore.train.reports import Report
from dpcore.train.trainer import run_trial
from sweeps.ledger.database import shown
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.lines import UNFULFILLED
from sweeps.ledger.totals import views_text
from sweeps.models.claims import claim_of_training, price_of, save_claim
from sweeps.pricing.selection import epsilon_of_selection, say_spent, winner_claim, with_releases
from sweeps.pricing.validation import ValidationPlan, plan_validation, score_reservation
from sweeps.records.charged import open_ledger
from sweeps.records.cohort_ledger import charged_url
from sweeps.records.export import UNKNOWN, ExportedConfig, Price
from sweeps.records.publication import load_spec, require_state, results_at_hand, trial_at_hand
from sweeps.records.results import TrialRecord, read_results, title_of
from sweeps.records.spec import SweepSpec

IDENTITY_FILE = "train.json"
KEY_FILE = "train.key"
COMMAND = "train"
RESULT_KEYS = ("epsilon_target", "epsilon_spent", "delta", "method", "pckh_50", "pckh_10", "metric", "score", "trial_id", "fingerprint")


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A checked request.

    Attributes:
        exported: the content of best.yaml.
        spec: the sweep that it came from. None if that sweep does not exist (any more) and `ledger_url` was given.
        places: folders of datasets and caches.
        out: folder of the new model.
        ledger_url: a ledger given on purpose; None charges the ledger of the sweep.
        on_report: hears every report that was held against the plan.
    """

    exported: ExportedConfig
    spec: SweepSpec | None
    places: Places
    out: Path
    ledger_url: str | None
    on_report: Callable[[Report], None] = lambda report: None

    @property
    def config(self) -> TrialConfig:
        """The trial's settings."""
        return self.exported.config

    @cached_property
    def validation(self) -> ValidationPlan | None:
        """How scores on the private validation data of the sweep leave; None where validation is public."""
        return None if self.spec is None else plan_validation(self.spec.space, self.places.cache_dir)


def origin_spec(exported: ExportedConfig, *, needed: bool) -> SweepSpec | None:
    """The sweep that the config came from; None if it cannot be reached and is not needed.

    Raises:
        Unavailable: it is needed, but its folder does not exist.
    """
    origin = exported.origin
    if origin is None:
        if needed:
            raise Unavailable("the config names no origin, so there is no ledger to charge; --ledger URL names one on purpose")
        return None
    try:
        spec = load_spec(origin.sweep, origin.storage)
        return require_state(spec) if needed else spec
    except BadInput:
        if not needed:
            return None
        raise Unavailable(
            f"the sweep {origin.sweep} is not in {origin.storage}, so its ledger and key can't be reached; "
            "restore the folder, or give --ledger URL to charge another ledger on purpose (a replay needs the folder)"
        ) from None


@dataclass(frozen=True, kw_only=True)
class _Training:
    """A training that begins or continues: the names behind its noise, and of whom its scores are counted."""

    trial_id: str
    key: SweepKey
    plan: PrivacyPlan | None
    people: ScoredPeople | None
    attempt: Attempt = FIRST


def train_fresh(request: TrainRequest) -> dict[str, Any]:
    """Trains with fresh noise into the new folder `request.out`, after the ledger holds its whole planned spending.

    The key is removed at the end. Anyone with the folder and the key could remove the noise from the weights.

    Returns:
        The result as `--json` prints it.

    Raises:
        Refused: the folder exists, or the cap on ε would be exceeded. Unavailable: the ledger can't be reached.
    """
    training = _Training(
        trial_id=f"{COMMAND}-{uuid.uuid4().hex[:12]}", key=SweepKey.fresh(), plan=_plan(request, FIRST), people=request.exported.people
    )
    if request.out.exists():
        raise Refused(f"{request.out} already exists: --resume continues it, or give --out another folder")
    return _train(request, training, begin=lambda: _begin(request, training))


def train_resumed(request: TrainRequest, *, new_attempt: bool) -> dict[str, Any]:
    """Continues the training in `request.out`. A finished training only prints its result again.

    Trial id and key lie in the folder, so it replays under its existing reservation, at no charge. If that is impossible, `new_attempt`
    continues from the newest checkpoint with fresh noise, after the steps from there on were charged again.

    Raises:
        BadInput: nothing began there.
        Refused: it began with another config, or the cap on ε would be exceeded.
        NotReplayable: key, machine, libraries or runtime differ from the beginning, and no new attempt was requested.
        Unavailable: the ledger can't be reached.
    """
    identity = _read_identity(request)
    if (request.out / RESULT_FILE).is_file() and not (request.out / KEY_FILE).exists():
        recorded = read_json(request.out / RESULT_FILE)
        recorded = {"metric": "pckh_50", "score": recorded["pckh_50"], **recorded}  # 0.2.0 wrote neither: it maximised PCKh@0.5
        return {name: recorded[name] for name in RESULT_KEYS}
    known, people = parse_config(Attempt, identity["attempt"], where="attempt"), request.exported.people
    if not new_attempt:
        key, plan = _known_key(request), _plan(request, known)
        training = _Training(trial_id=identity["trial_id"], key=key, plan=plan, people=people, attempt=known)
        return _train(request, training, begin=lambda: None)
    attempt = known.next_in(request.out)
    key, plan = _known_or_new_key(request), _plan(request, attempt)
    training = _Training(trial_id=identity["trial_id"], key=key, plan=plan, people=people, attempt=attempt)
    document = _identity(request, training)
    return _train(request, training, begin=lambda: write_json(request.out / IDENTITY_FILE, document))


def _train(request: TrainRequest, training: _Training, *, begin: Callable[[], None]) -> dict[str, Any]:
    """Reserves, then begins (writes down what a resume needs), then runs."""
    reservations = list(filter(None, (_score(request, training), _reservation(request, training))))
    ledger = _open_ledger(request) if reservations else None
    if ledger is not None:
        cap = None if request.spec is None else request.spec.space.sweep.epsilon_total
        for reservation in reservations:
            ledger.reserve(reservation, cap=cap, compose=price)
    begin()
    try:
        with naming_full_disk(request.out):
            last = _run(request, training, folder=request.out, expected={})
    except OutOfMemory as error:
        raise OutOfMemory(
            f"{error}; then `--resume --new-attempt` continues. The charge so far remains", physical_batch_size=error.physical_batch_size
        ) from None
    except NotAsPlanned as error:
        if ledger is not None:
            for reservation in reservations:
                ledger.settle(reservation, steps_done=reservation.steps, outcome=UNFULFILLED)
        raise NotAsPlanned(f"{error}. The charge stands, and the ledger says that the claim is void; do not use {request.out}") from None
    except NotReplayable as error:
        raise NotReplayable(f"{error}. `--resume --new-attempt` does that; the charge so far remains") from None
    if ledger is not None:
        for reservation in reservations:
            ledger.settle(reservation, steps_done=last.step, outcome="done")
    claim, attempt = _claim(request), training.attempt
    save_claim(request.out, claim.with_earlier_attempts(attempt.from_step) if attempt.number else claim, _price(request))
    (request.out / KEY_FILE).unlink()
    return _result(request.config, training.trial_id, last, request.exported.metric)


def _claim(request: TrainRequest) -> PrivacyClaim:
    return claim_of_training(request.config, request.spec, places=request.places, runtime=request.exported.runtime)


def _price(request: TrainRequest) -> Price:
    """What choosing the settings cost; of settings whose sweep is not at hand what their file says."""
    if request.spec is None:
        return UNKNOWN if request.exported.release is None else request.exported.release.price
    with results_at_hand(request.spec) as folder:
        try:
            return price_of(request.spec, read_results(folder))
        except BadInput:  # the sweep's tables are gone
            return UNKNOWN


def _open_ledger(request: TrainRequest) -> Ledger:
    """The ledger of the people, where their dataset names one, else the one that was given or the sweep's."""
    from dpcore.data.catalog import open_dataset

    url = charged_url(open_dataset(request.config.data.private, request.places))
    if url is not None:
        if request.ledger_url not in (None, url):
            raise Refused(f"--ledger: the people of {request.config.data.private} are charged to {shown(url)}, which their dataset names")
        witness = None if request.spec is None else request.spec.ledger_witness
        return Ledger(url, must_exist=True, witness=witness)
    if request.ledger_url is not None:
        return Ledger(request.ledger_url)
    if request.spec is None:
        raise Unavailable("there is no ledger to charge; --ledger URL names one on purpose")
    return open_ledger(request.spec, must_exist=True)


def _score(request: TrainRequest, training: _Training) -> Reservation | None:
    """One more score on private validation data, under the noise of the sweep's."""
    from dpcore.data.catalog import open_dataset

    plan = request.validation
    if plan is None:
        return None
    cohort = open_dataset(request.config.data.validation, request.places).members.cohort
    charged = _charged_sweep(request)
    return score_reservation(request.config, plan, sweep=charged, trial_id=training.trial_id, cohort=cohort, key_id=training.key.key_id())


def _charged_sweep(request: TrainRequest) -> str:
    return COMMAND if request.exported.origin is None else f"{COMMAND} {request.exported.origin.sweep}"


def _plan(request: TrainRequest, attempt: Attempt) -> PrivacyPlan | None:
    """What the training spends: made here, then reserved, executed and held against its reports."""
    plan = plan_privacy(request.config, request.places.cache_dir)
    return None if plan is None else plan.rest_from(attempt.from_step, price)


def _reservation(request: TrainRequest, training: _Training) -> Reservation | None:
    from dpcore.data.catalog import open_dataset

    plan = training.plan
    if plan is None:
        return None
    cohort = open_dataset(request.config.data.private, request.places).members.cohort
    return Reservation(
        sweep=_charged_sweep(request),
        trial_id=training.trial_id,
        attempt=training.attempt.number,
        dataset=request.config.data.private,
        cohort=cohort,
        sampling_prob=plan.sampling_prob,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.reserved.steps,
        relation=plan.relation,
        epsilon=plan.reserved.epsilon,
        delta=plan.delta,
        fingerprint=request.config.fingerprint(),
        key_id=training.key.key_id(),
        priced_by=_filter_of(request),
        unit=request.config.privacy_unit,
        examples_per_unit=request.config.examples_per_unit,
        views=views_text([] if request.config.split is None else [request.config.split]),
        labels=request.config.labels,
    )


def _filter_of(request: TrainRequest) -> str:
    """Settings that a sweep chose together with q or the steps are charged to its filter, which has reserved budget for them."""
    terms = None if request.spec is None else request.spec.privacy_filter
    return "" if terms is None or request.ledger_url is not None else terms.text()


def _begin(request: TrainRequest, training: _Training) -> None:
    """Writes the folder with everything that a resume needs, completely or not at all."""
    with new_folder(request.out, private=_is_protected(request)) as folder:
        training.key.save(folder / KEY_FILE)
        write_json(folder / IDENTITY_FILE, _identity(request, training))


def _is_protected(request: TrainRequest) -> bool:
    from dpcore.data.catalog import open_dataset

    return open_dataset(request.config.data.in_private_place, request.places).manifest.protected


def _identity(request: TrainRequest, training: _Training) -> dict[str, Any]:
    attempt = training.attempt.model_dump(mode="json")
    return {"trial_id": training.trial_id, "attempt": attempt, "exported": request.exported.model_dump(mode="json")}


def _read_identity(request: TrainRequest) -> dict[str, Any]:
    """Reads what was stored when the training in the folder began, and checks that the config is the same. The trial itself checks the
    runtime, because it knows what a replay needs."""
    path = request.out / IDENTITY_FILE
    if not path.is_file():
        raise BadInput(f"{request.out}: nothing to resume (no {IDENTITY_FILE}); leave --resume out to begin")
    identity: dict[str, Any] = read_json(path)
    now = request.exported.model_dump(mode="json")
    if any(identity["exported"][part] != now[part] for part in ("config", "origin")):
        raise Refused(f"{request.out} began with another config; give that config, or --out another folder")
    return identity


def _known_key(request: TrainRequest) -> SweepKey:
    path = request.out / KEY_FILE
    if not path.exists():
        raise NotReplayable(
            f"{path}, the key of this training, is lost: its noise cannot be drawn again, and its charge remains. Restore the key, or "
            "continue from the newest checkpoint under a new key with `--resume --new-attempt`, which charges the steps from there again"
        )
    return SweepKey.load(path)


def _known_or_new_key(request: TrainRequest) -> SweepKey:
    path = request.out / KEY_FILE
    if not path.exists():
        SweepKey.fresh().save(path)
    return SweepKey.load(path)


def train_replay(request: TrainRequest, *, keep: bool) -> dict[str, Any]:
    """Runs the recorded trial again and compares every report's weight digest with the recorded one.

    Args:
        request: `out` receives the model if `keep`.
        keep: whether to write the model.

    Raises:
        Refused: the config differs from the trial's, or the folder exists.
        NotReplayable: machine, libraries or runtime differ from the trial's, or a digest differs. Nothing is written then.
        Unavailable: the sweep key is not there.
    """
    spec, origin = request.spec, request.exported.origin
    if spec is None or origin is None:
        raise Unavailable("a replay needs the sweep that the config came from: its key and its recorded digests")
    if keep and request.out.exists():
        raise Refused(f"{request.out} exists already and is not overwritten; give --out another folder")
    record = with_releases(read_results(spec.sweep_dir), spec.space).trial(origin.trial_id)
    if record.fingerprint != request.config.fingerprint() or record.fingerprint != origin.fingerprint:
        raise Refused(
            f"the config was changed since trial {origin.trial_id}: that is a new private run; leave --replay out and it is charged"
        )
    if record.from_step:
        raise NotReplayable(
            f"trial {record.trial_id} was finished by attempt {record.attempt}, which went on from step {record.from_step} of an earlier "
            "one on another machine or under another key; no single run repeats both. Without --replay a new private run is charged"
        )
    attempt = Attempt(number=record.attempt)
    key, plan, people = SweepKey.load(spec.key_path), _plan(request, attempt), spec.people_of(record.role)
    training = _Training(trial_id=record.trial_id, key=key, plan=plan, people=people, attempt=attempt)
    parent = request.out.absolute().parent if keep else None
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".dpsweep-replay-") as temporary:
        folder = Path(temporary) / "trial"
        _take_identity(trial_at_hand(spec, record.trial_id), folder)
        expected = {point.step: point.weights_digest for point in record.curve}
        last = _run(request, training, folder=folder, expected=expected)
        _check_score(record, last)
        claim = winner_claim(
            _claim(request), record, spec.space, claim_of=lambda one: _claim(replace(request, exported=_with(request, one)))
        )
        save_claim(folder, claim, _price(request))
        selected = epsilon_of_selection(record, spec.space)
        if selected is not None:
            say_spent(folder, selected)
        if keep:
            if _is_protected(request):
                folder.chmod(PRIVATE_MODE)
            shutil.move(folder, request.out)
    result = _result(request.config, record.trial_id, last, record.metric)
    return result if selected is None else {**result, "epsilon_spent": selected}


def _with(request: TrainRequest, config: TrialConfig) -> ExportedConfig:
    return request.exported.model_copy(update={"config": config})


def _take_identity(recorded: Path, folder: Path) -> None:
    """Lets the trainer hold data, starting weights, libraries and machine against the recorded ones before its first step:
    two runs with one noise and different sums would reveal their difference."""
    identity = recorded / TRIAL_IDENTITY_FILE
    if identity.is_file():
        folder.mkdir()
        shutil.copyfile(identity, folder / TRIAL_IDENTITY_FILE)


def _run(request: TrainRequest, training: _Training, *, folder: Path, expected: dict[int, str]) -> Report:
    last: Report | None = None
    scored = request.validation
    handout = Handout(
        places=request.places,
        trial_id=training.trial_id,
        key=training.key,
        folder=folder,
        plan=training.plan,
        attempt=training.attempt,
        validation=None if scored is None else scored.release_to(training.people),
        metric=request.exported.metric,
        people=training.people,
    )
    for last in run_trial(request.config, request.exported.runtime, handout):
        check_spent(
            training.plan, last.spent, step=last.step, done=last.done, epsilon_at=partial(epsilon_spent, cache_dir=request.places.cache_dir)
        )
        if last.step in expected and last.weights_digest != expected[last.step]:
            raise NotReplayable(
                f"the replay reached weights {last.weights_digest} at step {last.step}, recorded are {expected[last.step]}: this machine "
                "does not repeat the trial bit for bit; nothing was written. Without --replay a new private run is charged"
            )
        request.on_report(last)
        metric = request.exported.metric
        score = last.metrics.get(f"val/{metric}")
        shown = "" if score is None else f", {title_of(metric)} {100 * score:.2f} %"
        print(f"{training.trial_id}: step {last.step}{shown}", file=sys.stderr)
    if last is None:
        raise Refused(f"trial {training.trial_id} ended without a report")
    return last


def _check_score(record: TrialRecord, last: Report) -> None:
    found = last.metrics.get(record.metric_key)
    if not last.done or found != record.score:
        raise Refused(f"the replay ended with {title_of(record.metric)} {found}, recorded is {record.score}; nothing was written")


def _epsilon_spent(config: TrialConfig, last: Report) -> float | None:
    """What the run spent: infinite (None) without privacy, 0 where nothing private was read, else what its report was held for."""
    if config.traits.is_unbounded:
        return None
    if not config.spends_privacy:
        return 0.0
    return None if last.spent is None else last.spent.epsilon


def _result(config: TrialConfig, trial_id: str, last: Report, metric: str) -> dict[str, Any]:
    return {
        "epsilon_target": config.epsilon if config.spends_privacy else None,
        "epsilon_spent": _epsilon_spent(config, last),
        "delta": config.delta if config.spends_privacy else None,
        "method": config.method,
        "pckh_50": last.metrics.get("val/pckh_50"),
        "pckh_10": last.metrics.get("val/pckh_10"),
        "metric": metric,
        "score": last.metrics.get(f"val/{metric}"),
        "trial_id": trial_id,
        "fingerprint": config.fingerprint(),
    }
