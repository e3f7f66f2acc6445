"""Turns a sweep into MLflow events. Only the driver sends them.

    experiment = sweep ─┬─ epsilon 0.8 ─── one run per trial (search and fresh seeds) with its learning curve
                        ├─ references  ─── floor, ceiling, control
                        └─ summary         report, figures, contact sheets of the winners

Guarantees: an unreachable MLflow at the start is an error. After that, tracking never stops or fails a trial. Every event is on disk
before it is sent (`Spool`), one thread sends in order (`Sender`), and nothing is written twice (`MlflowStore`). On protected data only
what the allow-list names leaves, and timestamps reveal no durations (they follow the step number).
"""

from __future__ import annotations

import functools
import json
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config import TrialConfig
from dpcore.durable import OWNER_ONLY, read_json, summed, without_sum, write_json
from sweeps.models.claims import price_of, save_claim
from sweeps.pricing.selection import winner_claim
from sweeps.records.export import render_yaml
from sweeps.records.publication import trial_at_hand
from sweeps.records.trial_id import alias_of, epsilon_name
from sweeps.report.curves import FOLDER as CURVES_FOLDER
from sweeps.report.curves import save_trial_curve
from sweeps.tracking.allow_list import WITHHELD, allowed_error, allowed_metrics, is_allowed
from sweeps.tracking.mlflow_connection import connect, prepare_mlflow
from sweeps.tracking.mlflow_store import MlflowStore, artifacts_of, connected, is_final, outage_types
from sweeps.tracking.sender import Sender
from sweeps.tracking.spool import Spool
from sweeps.tracking.trial_facts import CatalogFacts, TrialFacts

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.privacy.claim import PrivacyClaim
    from dpcore.privacy.disclosure import Disclosure
    from dpcore.privacy.plan import PrivacyPlan
    from sweeps.records.export import Price
    from sweeps.records.results import CurvePoint, SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec
    from sweeps.report.contact_sheet import ContactSheet
    from sweeps.report.disclosure import PolicyDisclosure
    from sweeps.report.disclosure_sheet import DisclosureSheet

IDENTITY_FILE = "tracking.json"
"""In the state: which sweep of its name this is to MLflow, and when it began."""
REFERENCE_ROLES = frozenset({"floor", "ceiling", "sealed_ceiling", "control"})
STATUS_OF_STATE = {"done": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
SPLIT_DISCLOSURE = "split/disclosure"
DRAIN_WITHIN_S = 30.0
VOID_CLAIM = "void: something else ran than was reserved; the reservation stays charged"


class Tracker:
    """Sends the driver's events to MLflow. Call `sweep_started` first and `close` last.

    `sweep_started` is idempotent: a resumed sweep calls it again and continues the same runs.
    """

    def __init__(self, spec: SweepSpec, *, facts: TrialFacts | None = None, clock: Callable[[], float] = time.time) -> None:
        self._spec = spec
        self._facts = facts if facts is not None else CatalogFacts(spec.places, spec.runtime)
        self._clock = clock
        self._sender: Sender | None = None
        self._spool: Spool | None = None
        self._refused_names: set[str] = set()
        self._started_ms = 0
        self._disclosed: PolicyDisclosure | None = None
        self._tells_time = True

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
        self._started_ms = self._identity["started_ms"]
        self._spool = Spool(spec.state_dir)
        self._sender = Sender(self._spool, store.deliver, outages=outage_types(), is_final=is_final)
        for epsilon in spec.space.sweep.epsilons:
            self._start_parent(parent_of(epsilon), {"epsilon": epsilon_name(epsilon)})
        self._start_parent("references", {})

    def _load_identity(self) -> dict[str, Any]:
        path = self._spec.state_dir / IDENTITY_FILE
        if not path.exists():
            identity = {"sweep_id": uuid.uuid4().hex, "started_ms": int(self._clock() * 1000)}
            write_json(path, summed(identity), mode=OWNER_ONLY)
        return without_sum(read_json(path), where=str(path))

    def _start_parent(self, key: str, tags: dict[str, str]) -> None:
        self._send(kind="run", key=key, name=key, parent=None, tags=tags, params={}, texts={}, datasets=[], time_ms=self._started_ms)

    def views_disclosed(self, policy: PolicyDisclosure, sheet: DisclosureSheet) -> None:
        """Adds disclosure to every later claim and `split/disclosure` to every later run. Sends the sheet to the references."""
        self._disclosed = policy
        self._send_files("references", [sheet.path], folder="disclosure", remove=sheet.mlflow_only)

    def trial_started(self, record: TrialRecord) -> None:
        """Opens the run of a trial: tags, the flat config as params, config.yaml, claim.json, datasets."""
        config = record.config
        claim = self._claim_of(record)
        manifests = self._facts.manifests(config)
        self._send(
            kind="run",
            key=record.trial_id,
            name=record.trial_id,
            parent="references" if record.role in REFERENCE_ROLES else parent_of(record.epsilon),
            tags={
                "trial_id": record.trial_id,
                "role": record.role,
                **({"attempt": f"{record.attempt} from step {record.from_step}"} if record.attempt else {}),
                **self._epsilon_tags(record),
                "method": config.method,
                "fingerprint": config.fingerprint(),
                "claim": claim.paragraph(),
            },
            params=flat_params(config),
            texts={"config.yaml": config_yaml(config), "claim.json": claim.model_dump_json(indent=2)},
            datasets=[dataset_input(part, manifest) for part, manifest in manifests.items()],
            time_ms=self._time_ms(config, 0),
        )
        own = self._disclosure_of(config)
        if own is not None and own.disclosure is not None:
            metrics = {SPLIT_DISCLOSURE: own.disclosure}
            self._send(kind="metrics", key=record.trial_id, step=0, metrics=metrics, time_ms=self._time_ms(config, 0))

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
        protected = self._is_protected(record.config)
        metrics = allowed_metrics(report.metrics, protected=protected)
        if protected:
            self._announce_refused(report.metrics)
        time_ms = self._time_ms(record.config, report.step)
        self._send(kind="metrics", key=record.trial_id, step=report.step, metrics=metrics, time_ms=time_ms)

    def trial_ended(self, record: TrialRecord) -> None:
        """Closes the run of a trial: done as FINISHED, pruned as KILLED, failed as FAILED. Before that it sends the curve, if any."""
        curve = save_trial_curve(record, self._spec.sweep_dir / "report" / CURVES_FOLDER)
        if curve is not None:
            self._send_files(record.trial_id, [curve], folder=CURVES_FOLDER)
        tags: dict[str, str] = {"state": record.state}
        if record.error is not None:
            tags["error"] = allowed_error(record.error, protected=self._is_protected(record.config))
        if not record.fulfilled:
            tags["claim"] = VOID_CLAIM
        status = STATUS_OF_STATE[record.state]
        self._send(kind="end", key=record.trial_id, status=status, tags=tags, time_ms=self._time_ms(record.config, record.steps))

    def summary(self, results: SweepResults, text: str, figures: Sequence[Path], sheets: Sequence[ContactSheet] = ()) -> None:
        """Sends the report, its figures and the best trial per ε: scores, contact sheet, and a model version with its alias."""
        now_ms = self._now_ms()
        self._send(
            kind="run",
            key="summary",
            name="summary",
            parent=None,
            tags={"accounting": self._spec.space.sweep.accounting, **_reasons(sheets)},
            params={},
            texts={"report.md": text},
            datasets=[],
            time_ms=self._started_ms,
        )
        self._send_files("summary", figures, folder="figures")
        for sheet in sheets:
            if sheet.path is not None:
                self._send_files("summary", [sheet.path], folder="contact_sheets", remove=sheet.mlflow_only)
        price = price_of(self._spec, results)
        self._save_claims(results, price)
        for epsilon in self._spec.space.sweep.epsilons:
            best = results.best(epsilon)
            if best is not None and best.score is not None:
                scores = {f"best/{best.metric}/eps_{epsilon_name(epsilon)}": best.score}
                self._send(kind="metrics", key="summary", step=0, metrics=scores, time_ms=now_ms)
                self._register(best, epsilon, price)
        self._send(kind="end", key="summary", status="FINISHED", tags={}, time_ms=now_ms)

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
        self._send(
            kind="model",
            key=record.trial_id,
            alias=alias_of(epsilon),
            model=str(model),
            config=config_yaml(record.config),
            height_px=record.config.model.input_height_px,
            width_px=record.config.model.input_width_px,
            protected=self._is_protected(record.config),
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
        if self._sender is None or self._spool is None:
            return
        sender, path = self._sender, self._spool.path
        try:
            self._send(kind="end_all", status="KILLED" if interrupted else "FINISHED", time_ms=self._now_ms())
        finally:  # a full disk takes no event; the thread must end all the same, or the process never does
            self._sender = self._spool = None
            left = sender.close(within_s=DRAIN_WITHIN_S)
        if left:
            print(f"dpsweep: {left} events wait in {path}; `dpsweep resume {self._spec.name}` sends them", file=sys.stderr)

    def _send_files(self, key: str, paths: Sequence[Path], *, folder: str, remove: bool = False) -> None:
        """Uploads files. `remove` is for files that only MLflow may keep."""
        self._send(kind="files", key=key, paths=[str(path) for path in paths], folder=folder, remove=remove)

    def _send(self, **event: Any) -> None:
        if self._sender is None:
            raise RuntimeError("call Tracker.sweep_started before any other event")
        self._sender.append(event)

    def _announce_refused(self, metrics: Mapping[str, float]) -> None:
        fresh = {name for name in metrics if not is_allowed(name)} - self._refused_names
        if fresh:
            self._refused_names |= fresh
            print(f"dpsweep: not sent to MLflow (protected data, not on the allow-list): {', '.join(sorted(fresh))}", file=sys.stderr)

    def _time_ms(self, config: TrialConfig, step: int) -> int:
        """The time of an event. On protected data it is the start of the sweep plus one millisecond per step, to hide durations."""
        self._tells_time = self._tells_time and not self._is_protected(config)
        return self._now_ms() if self._tells_time else self._started_ms + step

    def _now_ms(self) -> int:
        """The end of the sweep. On protected data it is the start, because the length of a sweep is the sum of its trials' durations."""
        return int(self._clock() * 1000) if self._tells_time else self._started_ms

    def _is_protected(self, config: TrialConfig) -> bool:
        return any(manifest.protected for manifest in self._facts.manifests(config).values())


def check_tracking(uri: str) -> None:
    """Raises `Unavailable` if nothing answers, for callers that must know before they start."""
    prepare_mlflow()
    connect(uri)


def parent_of(epsilon: float | None) -> str:
    """Key and name of the parent run of an ε."""
    return "references" if epsilon is None else f"epsilon {epsilon_name(epsilon)}"


def _reasons(sheets: Sequence[ContactSheet]) -> dict[str, str]:
    """Why a contact sheet is missing or shows other crops, as tags of the summary."""
    return {f"contact_sheet.eps_{epsilon_name(sheet.epsilon)}": sheet.reason for sheet in sheets if sheet.reason is not None}


def epsilon_tag(config: TrialConfig) -> str:
    """ε target as a tag: a number, `inf` without privacy, or `0` if nothing private is read."""
    if config.traits.is_unbounded:
        return "inf"
    return epsilon_name(config.epsilon) if config.spends_privacy and config.epsilon is not None else "0"


def flat_params(config: TrialConfig) -> dict[str, str]:
    """Dotted path → value as text. Fields that are None are left out."""
    flat: dict[str, str] = {}

    def walk(prefix: str, node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(f"{prefix}.{key}" if prefix else key, value)
        elif node is not None:
            flat[prefix] = node if isinstance(node, str) else json.dumps(node)

    walk("", config.model_dump(mode="json"))
    return flat


def config_yaml(config: TrialConfig) -> str:
    """The config as YAML text. Sections are cached, because most are equal in all trials of a sweep and rendering is slow."""
    return "".join(_section_yaml(name, json.dumps(value)) for name, value in config.model_dump(mode="json").items())


@functools.lru_cache(maxsize=256)
def _section_yaml(name: str, value: str) -> str:
    return render_yaml({name: json.loads(value)})


def dataset_input(part: str, manifest: Manifest) -> dict[str, str]:
    """A dataset as MLflow shows it. A plain digest of protected data is left out, because it is a membership test."""
    return {"context": part, "name": manifest.name, "digest": WITHHELD if manifest.protected else manifest.digest[:36]}
