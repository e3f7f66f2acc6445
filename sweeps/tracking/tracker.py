"""Turns a sweep into MLflow events. Only the driver sends them.

    experiment = sweep ─┬─ epsilon 0.8 ─── one run per trial (search and fresh seeds) with its learning curve
                        ├─ references  ─── floor, ceiling, control
                        └─ summary         report, figures, contact sheets of the winners

Guarantees: an unreachable MLflow at the start is an error. After that, tracking never stops or fails a trial. Every event is on disk
before it is sent (`Spool`), one thread sends in order (`Sender`), and nothing is written twice (`MlflowStore`). On protected data only
what the allow-list names leaves, and timestamps reveal no durations (they follow the step number).
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dpcore.config import TrialConfig
from dpcore.durable import OWNER_ONLY, read_json, summed, without_sum, write_json
from sweeps.models.claims import price_of, save_claim
from sweeps.pricing.selection import winner_claim
from sweeps.records.publication import trial_at_hand
from sweeps.records.trial_id import alias_of, epsilon_name
from sweeps.report.curves import FOLDER as CURVES_FOLDER
from sweeps.report.curves import save_trial_curve
from sweeps.tracking.browsing import (
    NOTE_TAG,
    SweepSummary,
    config_yaml,
    epsilon_tag,
    experiment_note,
    experiment_url,
    parent_metrics,
    parent_name,
    run_name,
    searched_params,
)
from sweeps.tracking.door import Door
from sweeps.tracking.mlflow_connection import connect, prepare_mlflow
from sweeps.tracking.mlflow_store import MlflowStore, artifacts_of, connected, is_final, outage_types
from sweeps.tracking.outbox.sender import Sender
from sweeps.tracking.outbox.spool import Spool
from sweeps.tracking.trial_facts import CatalogFacts, TrialFacts

if TYPE_CHECKING:
    from dpcore.privacy.claim import PrivacyClaim
    from dpcore.privacy.disclosure import Disclosure
    from dpcore.privacy.plan import PrivacyPlan
    from sweeps.records.export import Price
    from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec
    from sweeps.report.comparison import Comparison
    from sweeps.report.contact_sheet import ContactSheet
    from sweeps.report.disclosure import PolicyDisclosure
    from sweeps.report.disclosure_sheet import DisclosureSheet

IDENTITY_FILE = "tracking.json"
"""In the state: which sweep of its name this is to MLflow, and when it began."""
REFERENCE_ROLES = frozenset({"floor", "ceiling", "sealed_ceiling", "control"})
STATUS_OF_STATE = {"done": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
SPLIT_DISCLOSURE = "split/disclosure"
VOID_CLAIM = "void: something else ran than was reserved; the reservation stays charged"


class Tracker:
    """Sends the driver's events to MLflow. Call `sweep_started` first and `close` last.

    `sweep_started` is idempotent: a resumed sweep calls it again and continues the same runs.
    """

    def __init__(self, spec: SweepSpec, *, facts: TrialFacts | None = None, clock: Callable[[], float] = time.time) -> None:
        self._spec = spec
        self._facts = facts if facts is not None else CatalogFacts(spec.places, spec.runtime)
        self._clock = clock
        self._door = Door(self._facts, clock=clock)
        self._experiment_id = ""
        self._disclosed: PolicyDisclosure | None = None

    def sweep_started(self) -> None:
        """Connects, and opens the experiment and its parent runs. Sends first what an earlier process left in the spool.

        Raises:
            Unavailable: nothing answers at the tracking URI.
            Refused: the experiment belongs to another sweep.
        """
        spec = self._spec
        spec.storage_dir.mkdir(parents=True, exist_ok=True)
        client = connected(spec)
        self._identity = self._load_identity()
        store = MlflowStore(client, sweep=spec.name, sweep_id=self._identity["sweep_id"], artifacts=artifacts_of(spec))
        self._experiment_id = store.experiment_id
        spool = Spool(spec.state_dir)
        sender = Sender(spool, store.deliver, outages=outage_types(), is_final=is_final)
        self._door.open(spool, sender, started_ms=self._identity["started_ms"])
        for epsilon in spec.space.sweep.epsilons:
            self._start_parent(parent_of(epsilon), f"ε {epsilon_name(epsilon)}", {"epsilon": epsilon_name(epsilon)})
        self._start_parent("references", "references", {})

    def _load_identity(self) -> dict[str, Any]:
        path = self._spec.state_dir / IDENTITY_FILE
        if not path.exists():
            identity = {"sweep_id": uuid.uuid4().hex, "started_ms": int(self._clock() * 1000)}
            write_json(path, summed(identity), mode=OWNER_ONLY)
        return without_sum(read_json(path), where=str(path))

    @property
    def runs_url(self) -> str | None:
        """The page of the MLflow server that lists the runs of the sweep; None for a database, whose pages `dpsweep ui` serves."""
        uri = self._spec.resolved_tracking_uri
        return experiment_url(uri, self._experiment_id) if uri.startswith(("http://", "https://")) else None

    def _start_parent(self, key: str, name: str, tags: dict[str, str]) -> None:
        self._door.send(
            kind="run", key=key, name=name, parent=None, tags=tags, params={}, texts={}, datasets=[], time_ms=self._door.started_ms
        )

    def views_disclosed(self, policy: PolicyDisclosure, sheet: DisclosureSheet) -> None:
        """Adds disclosure to every later claim and `split/disclosure` to every later run. Sends the sheet to the references."""
        self._disclosed = policy
        self._door.send_files("references", [sheet.path], folder="disclosure", remove=sheet.mlflow_only)

    def trial_started(self, record: TrialRecord) -> None:
        """Opens the run of a trial: tags, what was searched as params, config.yaml, claim.json, datasets, and its claim as description."""
        config = record.config
        claim = self._claim_of(record)
        self._door.send(
            kind="run",
            key=record.trial_id,
            name=self._name_of(record),
            parent="references" if record.role in REFERENCE_ROLES else parent_of(record.epsilon),
            tags={
                "trial_id": record.trial_id,
                "role": record.role,
                **({"attempt": f"{record.attempt} from step {record.from_step}"} if record.attempt else {}),
                **self._epsilon_tags(record),
                "method": config.method,
                "fingerprint": config.fingerprint(),
                "claim": claim.paragraph(),
                NOTE_TAG: claim.paragraph(),
            },
            params=searched_params(self._spec.space, config),
            texts={"config.yaml": config_yaml(config), "claim.json": claim.model_dump_json(indent=2)},
            datasets=[facts.as_input(part) for part, facts in self._facts.datasets(config).items()],
            time_ms=self._door.time_ms(config, 0),
        )
        own = self._disclosure_of(config)
        if own is not None and own.disclosure is not None:
            self._door.send_metrics(record.trial_id, 0, {SPLIT_DISCLOSURE: own.disclosure}, config=config)

    def _claim_of(self, record: TrialRecord) -> PrivacyClaim:
        """What a trial claims as it is released. Candidates of a selection spend alike: the winner's plan is theirs."""

        def claim_of(config: TrialConfig) -> PrivacyClaim:
            return self._claim(config, record.reserved if config.spends_privacy else None)

        claim = winner_claim(self._claim(record.config, record.reserved), record, self._spec.space, claim_of=claim_of)
        return claim.with_earlier_attempts(record.from_step) if record.attempt else claim

    def _epsilon_tags(self, record: TrialRecord) -> dict[str, str]:
        """ε as it is released; of a selection's winner that of the selection, beside the target of the single run."""
        target = epsilon_tag(record.config)
        if self._spec.space.sweep.selection is None or record.role != "search" or record.epsilon_spent is None:
            return {"epsilon": target}
        return {"epsilon": f"{record.epsilon_spent:.6g}", "epsilon_target": target}

    def _claim(self, config: TrialConfig, plan: PrivacyPlan | None) -> PrivacyClaim:
        claim = self._facts.claim(config, plan)
        if config.split is None:
            return claim
        joint = None if self._disclosed is None else self._disclosed.of_all
        return claim.with_views(self._spec.space.splits_in_use, self._disclosure_of(config), joint)

    def _disclosure_of(self, config: TrialConfig) -> Disclosure | None:
        return None if config.split is None or self._disclosed is None else self._disclosed.of_split(config.split)

    def reported(self, record: TrialRecord, report: CurvePoint) -> None:
        """Sends one report of a running trial as one batch of metrics."""
        self._door.send_metrics(record.trial_id, report.step, report.metrics, config=record.config)

    def _name_of(self, record: TrialRecord) -> str:
        """The name of a trial's run. Its score stands there where the metric may leave."""
        score = None if record.is_sealed else record.score
        shown = {} if score is None else self._door.allowed({record.metric_key: score}, record.config)
        epsilon = self._epsilon_tags(record)["epsilon"]
        return run_name(epsilon=epsilon, method=record.config.method, trial_id=record.trial_id, score=shown.get(record.metric_key))

    def trial_ended(self, record: TrialRecord) -> None:
        """Closes the run of a trial: done as FINISHED, pruned as KILLED, failed as FAILED. Before that it sends the curve, if any."""
        curve = save_trial_curve(record, self._spec.sweep_dir / "report" / CURVES_FOLDER)
        if curve is not None:
            self._door.send_files(record.trial_id, [curve], folder=CURVES_FOLDER)
        tags: dict[str, str] = {"state": record.state}
        if record.error is not None:
            tags["error"] = self._door.allowed_error(record.error, record.config)
        if not record.fulfilled:
            tags["claim"] = VOID_CLAIM
        status = STATUS_OF_STATE[record.state]
        time_ms = self._door.time_ms(record.config, record.steps)
        self._door.send(kind="end", key=record.trial_id, name=self._name_of(record), status=status, tags=tags, time_ms=time_ms)

    def summary(self, summary: SweepSummary) -> None:
        """Sends the report with its pages and figures, the note of the experiment, what the parents show, and the best trial per ε: contact
        sheet, and a model version with its alias."""
        now_ms = self._door.now_ms()
        self._door.send(
            kind="run",
            key="summary",
            name="summary",
            parent=None,
            tags={"accounting": self._spec.space.sweep.accounting, **_reasons(summary.sheets)},
            params={},
            texts={"report.md": summary.text},
            datasets=[],
            time_ms=self._door.started_ms,
        )
        self._door.send_files("summary", summary.pages, folder=None)
        self._door.send_files("summary", summary.figures, folder="figures")
        for sheet in summary.sheets:
            if sheet.path is not None:
                self._door.send_files("summary", [sheet.path], folder="contact_sheets", remove=sheet.mlflow_only)
        price = price_of(self._spec, summary.results)
        self._save_claims(summary.results, price)
        best = {epsilon: summary.results.best(epsilon) for epsilon in self._spec.space.sweep.epsilons}
        winners = {epsilon: record for epsilon, record in best.items() if record is not None and record.score is not None}
        for epsilon, record in winners.items():
            self._register(record, epsilon, price)
        for number, comparison in enumerate(summary.comparisons):
            verdict = summary.verdicts[number] if number < len(summary.verdicts) else ""
            self._describe_parent(comparison, verdict, price, summary)
        claims = {record.trial_id: self._claim_of(record).paragraph() for record in winners.values() if record.fulfilled}
        pages = [path.name for path in summary.pages]
        note = experiment_note(verdicts=summary.verdicts, price=summary.price, claims=claims, pages=pages)
        self._door.send(kind="note", text=note)
        self._door.send(kind="end", key="summary", status="FINISHED", tags={}, time_ms=now_ms)

    def _describe_parent(self, comparison: Comparison, verdict: str, price: Price, summary: SweepSummary) -> None:
        """What the parent run of an ε shows once the sweep is over. A later end of the sweep (more trials) adds a later step."""
        key, winner = parent_of(comparison.epsilon), comparison.winner
        if winner is not None:
            step = sum(record.is_finished for record in summary.results.records)
            self._door.send_metrics(key, step, parent_metrics(comparison, price=price.epsilon), config=winner.config, at_end=True)
        self._door.send(
            kind="end", key=key, name=parent_name(comparison), status="FINISHED", tags={NOTE_TAG: verdict}, time_ms=self._door.now_ms()
        )

    def _save_claims(self, results: SweepResults, price: Price) -> None:
        """Puts a claim beside the model of every trial whose folder is here."""
        for record in results.records:
            model = self._spec.checkpoint_dir(record.trial_id) / "model"
            if record.state == "done" and record.fulfilled and model.is_dir():
                save_claim(model, self._claim_of(record), price)

    def _register(self, record: TrialRecord, epsilon: float, price: Price) -> None:
        """A model version with its claim and what choosing it cost, both in a file beside the weights and as tags."""
        model = trial_at_hand(self._spec, record.trial_id) / "model"
        if not model.is_dir() or not record.fulfilled:
            reason = f"{model} is not there" if record.fulfilled else f"the claim of {record.trial_id} is {VOID_CLAIM}"
            print(f"dpsweep: {reason}: no model version for ε = {epsilon_name(epsilon)}", file=sys.stderr)
            return
        claim = self._claim_of(record)
        save_claim(model, claim, price)
        self._door.send(
            kind="model",
            key=record.trial_id,
            alias=alias_of(epsilon),
            model=str(model),
            config=config_yaml(record.config),
            height_px=record.config.model.input_height_px,
            width_px=record.config.model.input_width_px,
            protected=self._door.is_protected(record.config),
            description=f"{claim.paragraph()}\n\nPrice: {price.text}",
            tags={
                "trial_id": record.trial_id,
                **self._epsilon_tags(record),
                "fingerprint": record.config.fingerprint(),
                "claim": claim.paragraph(),
                "price": price.text,
            },
        )

    def close(self, *, interrupted: bool = False) -> None:
        """Ends every run that is still RUNNING, waits a little for the last events, and stops the thread."""
        left = self._door.close(status="KILLED" if interrupted else "FINISHED")
        if left is not None:
            print(f"dpsweep: {left}; `dpsweep resume {self._spec.name}` sends them", file=sys.stderr)


def check_tracking(uri: str) -> None:
    """Raises `Unavailable` if nothing answers, for callers that must know before they start."""
    prepare_mlflow()
    connect(uri)


def parent_of(epsilon: float | None) -> str:
    """Key of the parent run of an ε."""
    return "references" if epsilon is None else f"epsilon {epsilon_name(epsilon)}"


def _reasons(sheets: Sequence[ContactSheet]) -> dict[str, str]:
    """Why a contact sheet is missing or shows other crops, as tags of the summary."""
    return {f"contact_sheet.eps_{epsilon_name(sheet.epsilon)}": sheet.reason for sheet in sheets if sheet.reason is not None}
