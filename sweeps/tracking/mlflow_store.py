"""Writes tracking events into MLflow, each exactly once.

An event may arrive twice: it was sent, and a crash came before the answer was recorded. So a run is looked up by its tags before it is
created. Steps that a run already has are skipped. A model version is looked up by its trial before it is registered.

| event `kind` | what it does |
|---|---|
| `run` | finds or creates a run; tags, params, texts, dataset inputs |
| `metrics` | one `log_batch` of one step |
| `files` | uploads files; with `remove` deletes the local files once MLflow has them |
| `model` | uploads weights, config and signature, registers a version, moves its alias |
| `end` | names and ends a run |
| `note` | the note of the experiment |
| `end_all` | ends what is still RUNNING in the sweep |
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.errors import Refused
from sweeps.tracking.browsing import NOTE_TAG, SWEEP_ID_TAG, linked
from sweeps.tracking.default_store import make_default_store
from sweeps.tracking.mlflow_connection import connect, prepare_mlflow
from sweeps.tracking.mlflow_model import write_model_folder
from sweeps.tracking.outbox.spool import TrackingEvent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from sweeps.records.spec import SweepSpec

KEY_TAG = "dpsweep.key"
IS_RUNNING = "attributes.status = 'RUNNING'"
PARAM_LENGTH = 6000
TAG_LENGTH = 5000


def connected(spec: SweepSpec) -> MlflowClient:
    """A client of the MLflow of a sweep; its own store is made on first use.

    Raises:
        Unavailable: nothing answers there. Corrupt, DiskFull: as `make_default_store`.
    """
    if spec.tracking_uri is None:
        prepare_mlflow()
        make_default_store(spec.default_store)
    return connect(spec.resolved_tracking_uri)


def artifacts_of(spec: SweepSpec) -> Path | None:
    """The folder of a sweep's artifacts. None: a server stores them; a plain database would put them into ./mlruns of the driver."""
    on_server = spec.tracking_uri is not None and spec.tracking_uri.startswith(("http://", "https://"))
    return None if on_server else spec.storage_dir / "mlartifacts"


class MlflowStore:
    """One sweep's experiment.

    Attributes:
        experiment_id: of the experiment with the sweep's name.
    """

    def __init__(self, client: MlflowClient, *, sweep: str, sweep_id: str, artifacts: Path | None) -> None:
        """Opens or creates the experiment.

        Args:
            client: A client that has answered.
            sweep: Name of the sweep, the experiment and the registered model.
            sweep_id: Distinguishes this sweep from another one of the same name on the same server.
            artifacts: Folder of the artifacts; None leaves them to the server.

        Raises:
            Refused: the experiment belongs to another sweep, or was deleted. If that sweep failed before its first trial, this
                sweep takes over its experiment instead.
        """
        self._client = client
        self._sweep = sweep
        self.experiment_id = self._open_experiment(sweep_id, artifacts)
        self._runs: dict[str, str] = {}
        self._older: set[str] = set()
        self._asked_for: set[str] = set()
        self._steps: dict[tuple[str, str], set[int]] = {}
        for run in sorted(self._all_runs(), key=lambda run: len(run.data.metrics)):
            emptier = self._runs.get(run.data.tags[KEY_TAG])
            if emptier is not None:
                self._client.delete_run(emptier)  # the answer to its request was so late that the request was repeated
            self._runs[run.data.tags[KEY_TAG]] = run.info.run_id
            self._older.add(run.info.run_id)

    def _open_experiment(self, sweep_id: str, artifacts: Path | None) -> str:
        experiment = self._client.get_experiment_by_name(self._sweep)
        if experiment is None:
            location = None if artifacts is None else (artifacts / self._sweep).resolve().as_uri()
            created = self._client.create_experiment(self._sweep, artifact_location=location, tags={SWEEP_ID_TAG: sweep_id})
            return str(created)
        if experiment.lifecycle_stage != "active":
            raise Refused(f"MLflow's experiment {self._sweep} was deleted there; restore it, or give the sweep another --name")
        experiment_id = str(experiment.experiment_id)
        if experiment.tags.get(SWEEP_ID_TAG) != sweep_id:
            self._take_over(experiment_id, sweep_id)
        return experiment_id

    def _take_over(self, experiment_id: str, sweep_id: str) -> None:
        """Takes over an experiment that holds only killed parent runs of a sweep that never began."""
        runs = self._client.search_runs([experiment_id], max_results=1000)
        if not runs or any(run.info.status != "KILLED" or "trial_id" in run.data.tags for run in runs):
            raise Refused(f"MLflow has an experiment {self._sweep} of another sweep; give this one another --name")
        self._client.set_experiment_tag(experiment_id, SWEEP_ID_TAG, sweep_id)
        for run in runs:
            self._client.delete_run(run.info.run_id)

    def _all_runs(self, condition: str = "") -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self._client.search_runs([self.experiment_id], condition, max_results=1000, page_token=token)
            runs.extend(run for run in page if KEY_TAG in run.data.tags)
            token = page.token
            if not token:
                return runs

    def deliver(self, event: TrackingEvent) -> None:
        """Writes one event; returns when MLflow has answered."""
        DELIVERIES[event["kind"]](self, event)

    def start_run(self, event: TrackingEvent) -> None:
        """Finds or creates the run `key` below the run `parent`, and (again) sets what describes it."""
        key = event["key"]
        tags = {name: value[:TAG_LENGTH] for name, value in event["tags"].items()} | {KEY_TAG: key, "sweep": self._sweep}
        if event["parent"] is not None:
            tags["mlflow.parentRunId"] = self._run_of(event["parent"])
        if key not in self._runs:
            self._runs[key] = self._found_or_created(event, tags)
            tags = {}
        else:
            self._client.update_run(self._runs[key], status="RUNNING")
        self._describe(self._runs[key], event, tags)

    def _found_or_created(self, event: TrackingEvent, tags: dict[str, str]) -> str:
        """Creates a run and returns its id. If an earlier request for it lost its answer, returns the existing run instead."""
        key = event["key"]
        there = self._all_runs(IS_RUNNING) if key in self._asked_for else []
        for run in there:
            if run.data.tags[KEY_TAG] == key:
                self._older.add(run.info.run_id)
                return str(run.info.run_id)
        self._asked_for.add(key)
        run = self._client.create_run(self.experiment_id, start_time=event["time_ms"], tags=tags, run_name=event["name"])
        return str(run.info.run_id)

    def _run_of(self, key: str) -> str:
        """The id of a run.

        Raises:
            Refused: MLflow refused to create it.
        """
        if key not in self._runs:
            raise Refused(f"there is no run {key}: MLflow refused to create it")
        return self._runs[key]

    def _describe(self, run_id: str, event: TrackingEvent, tags: dict[str, str]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        params = [Param(name, value[:PARAM_LENGTH]) for name, value in event["params"].items()]
        if tags:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        for start in range(0, len(params), 100):  # MLflow takes 100 a batch
            self._client.log_batch(run_id, params=params[start : start + 100])
        inputs = [
            DatasetInput(
                Dataset(source_type="dpsweep", **{name: item[name] for name in item if name != "context"}),
                [InputTag("mlflow.data.context", item["context"])],
            )
            for item in event["datasets"]
        ]
        if inputs:
            self._client.log_inputs(run_id, datasets=inputs)
        if event["texts"]:
            with tempfile.TemporaryDirectory() as folder:
                for name, text in event["texts"].items():
                    Path(folder, name).write_text(text, encoding="utf-8")
                self._client.log_artifacts(run_id, folder)

    def log_metrics(self, event: TrackingEvent) -> None:
        """One `log_batch` of the metrics that the run does not have at this step."""
        from mlflow.entities import Metric

        run_id, step = self._run_of(event["key"]), event["step"]
        fresh = {name: value for name, value in event["metrics"].items() if step not in self._known_steps(run_id, name)}
        if not fresh:
            return
        self._client.log_batch(run_id, metrics=[Metric(name, value, event["time_ms"], step) for name, value in fresh.items()])
        for name in fresh:
            self._steps[run_id, name].add(step)

    def _known_steps(self, run_id: str, metric: str) -> set[int]:
        known = self._steps.get((run_id, metric))
        if known is None:
            # A run that this process created has no history to ask for.
            history = self._client.get_metric_history(run_id, metric) if run_id in self._older else []
            known = self._steps[run_id, metric] = {point.step for point in history}
        return known

    def upload_files(self, event: TrackingEvent) -> None:
        """Uploads files below `folder` (None: at the top), replacing older ones. With `remove`, a missing local file was already sent."""
        for path in map(Path, event["paths"]):
            if event["remove"] and not path.exists():
                continue
            self._client.log_artifact(self._run_of(event["key"]), str(path), event["folder"])
            if event["remove"]:
                path.unlink()

    def register_model(self, event: TrackingEvent) -> str:
        """Uploads the weights of a trial, points `alias` at their version, and returns its number."""
        from mlflow.exceptions import MlflowException

        run_id = self._run_of(event["key"])
        try:
            self._client.get_registered_model(self._sweep)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._client.create_registered_model(self._sweep)
        versions = self._client.search_model_versions(f"name = '{self._sweep}'")
        known = [version for version in versions if version.run_id == run_id]
        if known:
            version = known[0]
        else:
            with tempfile.TemporaryDirectory() as folder:
                write_model_folder(Path(folder), event, run_id=run_id)
                self._client.log_artifacts(run_id, folder, "model")
            source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
            version = self._client.create_model_version(
                self._sweep, source=source, run_id=run_id, tags=event["tags"], description=event.get("description")
            )
        self._client.set_registered_model_alias(self._sweep, event["alias"], version.version)
        return str(version.version)

    def end_run(self, event: TrackingEvent) -> None:
        """Sets name, tags and the final status of a run."""
        run_id = self._run_of(event["key"])
        if event.get("name") is not None:
            self._client.update_run(run_id, name=event["name"])
        for name, value in event["tags"].items():
            self._client.set_tag(run_id, name, value[:TAG_LENGTH])
        self._client.set_terminated(run_id, event["status"], end_time=event["time_ms"])

    def write_note(self, event: TrackingEvent) -> None:
        """Sets the note of the experiment, with its links to runs completed."""
        text = linked(event["text"], experiment_id=self.experiment_id, run_of=self._run_of)
        self._client.set_experiment_tag(self.experiment_id, NOTE_TAG, text)

    def end_all(self, event: TrackingEvent) -> None:
        """Ends every run of the sweep that is still RUNNING: parents as FINISHED, trials that never ended as KILLED.

        A second run with the same key comes from a request whose answer was lost. It is deleted.
        """
        for run in self._all_runs(IS_RUNNING):
            if self._runs.get(run.data.tags[KEY_TAG], run.info.run_id) != run.info.run_id:
                self._client.delete_run(run.info.run_id)
                continue
            is_trial = "trial_id" in run.data.tags
            status = "KILLED" if is_trial else event["status"]
            self._client.set_terminated(run.info.run_id, status, end_time=event["time_ms"])


DELIVERIES = {
    "run": MlflowStore.start_run,
    "metrics": MlflowStore.log_metrics,
    "files": MlflowStore.upload_files,
    "model": MlflowStore.register_model,
    "end": MlflowStore.end_run,
    "end_all": MlflowStore.end_all,
    "note": MlflowStore.write_note,
}


PLAIN_REFUSAL = re.compile(r"failed with error code 4(?!01|03|04|07|08|25|29)\d\d ")
"""Refusals of a proxy before MLflow (413: too long). MLflow has no code for them and gives the status only in its message."""


def outage_types() -> tuple[type[Exception], ...]:
    """Errors behind which MLflow may be unreachable for a while."""
    prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, Refused)


def is_final(error: Exception) -> bool:
    """Whether sending the same event again would fail again: the request is refused, or its file or its run is not there.

    A wrong password and a missing permission (401, 403) can be corrected while the events wait. A proxy answers 404 for a server that is
    down. So these count as outages.
    """
    code = getattr(error, "error_code", None)
    refused = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}
    return isinstance(error, FileNotFoundError | Refused) or code in refused or PLAIN_REFUSAL.search(str(error)) is not None
