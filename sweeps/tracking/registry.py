"""Models in MLflow outside a running sweep: what `dpsweep train` made goes in, and a registered version comes out as a folder."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.durable import read_json, without_sum
from dpcore.errors import BadInput, Unavailable
from sweeps.models.claims import CLAIM_FILE, MODEL_FOLDER, load_claim
from sweeps.records.publication import checkpoint_at_hand
from sweeps.records.trial_id import alias_of
from sweeps.tracking.allow_list import allowed_metrics
from sweeps.tracking.browsing import NOTE_TAG, config_yaml, epsilon_tag, run_name, searched_params
from sweeps.tracking.mlflow_connection import connect, take_credentials
from sweeps.tracking.mlflow_store import MlflowStore, artifacts_of, connected, outage_types
from sweeps.tracking.tracker import IDENTITY_FILE, parent_of
from sweeps.tracking.trial_facts import CatalogFacts, TrackedDataset, TrialFacts
from sweeps.tracking.ui import store_of

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from search_spaces.space import SpaceFile
    from sweeps.records.results import CurvePoint
    from sweeps.records.spec import SweepSpec
    from sweeps.tracking.outbox.spool import TrackingEvent

SCHEME = "models:/"
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))")


@dataclass(frozen=True, kw_only=True)
class FinishedTraining:
    """What `dpsweep train` leaves.

    Attributes:
        folder: with the model and its claim in `model/`.
        curve: the reports of this process; after a resume the last ones alone.
    """

    trial_id: str
    config: TrialConfig
    folder: Path
    curve: Sequence[CurvePoint]


def log_training(spec: SweepSpec, training: FinishedTraining, *, facts: TrialFacts | None = None) -> str:
    """Logs a training as a run of its sweep's experiment, and registers its model with claim and price. Again, it changes nothing.

    All of it carries one time, that of this call: how long a training took is never told.

    Args:
        spec: of the sweep that the settings came from.
        training: finished, with its claim.
        facts: of the datasets; None: from the catalog.

    Returns:
        `models:/NAME/VERSION`.

    Raises:
        Unavailable: MLflow does not answer, or never heard of the sweep. Refused: the experiment is another sweep's.
    """
    path = spec.state_dir / IDENTITY_FILE
    if not path.is_file():
        raise Unavailable(f"{path} is not on this machine, so the experiment of sweep {spec.name} is not known")
    datasets = (facts or CatalogFacts(spec.places, spec.runtime)).datasets(training.config)
    events = _Events(training, datasets, space=spec.space)
    try:
        store = MlflowStore(
            connected(spec),
            sweep=spec.name,
            sweep_id=without_sum(read_json(path), where=str(path))["sweep_id"],
            artifacts=artifacts_of(spec),
        )
        store.start_run(events.run())
        for point in training.curve:
            store.log_metrics(events.metrics(point))
        version = store.register_model(events.model())
        store.end_run(events.end())
    except outage_types() as error:
        raise Unavailable(f"MLflow at {spec.resolved_tracking_uri} did not take it: {str(error).splitlines()[0]}") from error
    return f"{SCHEME}{spec.name}/{version}"


class _Events:
    """What MLflow hears of a training, all at one time."""

    def __init__(self, training: FinishedTraining, datasets: Mapping[str, TrackedDataset], *, space: SpaceFile) -> None:
        self._training = training
        self._datasets = datasets
        self._space = space
        self._protected = any(one.protected for one in datasets.values())
        self._claim = load_claim(training.folder)
        self._at = {"key": training.trial_id, "time_ms": int(time.time() * 1000)}
        self._said = {
            "trial_id": training.trial_id,
            "epsilon": epsilon_tag(training.config),
            "fingerprint": training.config.fingerprint(),
            "claim": self._claim.claim.paragraph(),
            "price": self._claim.price.text,
        }

    def run(self) -> TrackingEvent:
        config = self._training.config
        return {
            **self._at,
            "name": self._name(),
            "parent": parent_of(config.epsilon) if config.epsilon in self._space.sweep.epsilons else None,
            "tags": {**self._said, "role": "train", "method": config.method, NOTE_TAG: self._said["claim"]},
            "params": searched_params(self._space, config),
            "texts": {"config.yaml": config_yaml(config), CLAIM_FILE: self._claim.model_dump_json(indent=1)},
            "datasets": [facts.as_input(part) for part, facts in self._datasets.items()],
        }

    def metrics(self, point: CurvePoint) -> TrackingEvent:
        return {**self._at, "step": point.step, "metrics": allowed_metrics(point.metrics, protected=self._protected)}

    def model(self) -> TrackingEvent:
        config = self._training.config
        return {
            **self._at,
            "alias": "trained" if config.epsilon is None else alias_of(config.epsilon, of="trained"),
            "model": str(self._training.folder / MODEL_FOLDER),
            "config": config_yaml(config),
            "height_px": config.model.input_height_px,
            "width_px": config.model.input_width_px,
            "protected": self._protected,
            "description": f"{self._said['claim']}\n\nPrice: {self._said['price']}",
            "tags": self._said,
        }

    def end(self) -> TrackingEvent:
        return {**self._at, "name": self._name(), "tags": {"state": "done"}, "status": "FINISHED"}

    def _name(self) -> str:
        """As a trial's, with the score of its model where that may leave."""
        metric = self._space.sweep.metric
        key, score = f"val/{metric}", self._claim.scores.get(metric)
        shown = {} if score is None else allowed_metrics({key: score}, protected=self._protected)
        config = self._training.config
        return run_name(epsilon=self._said["epsilon"], method=config.method, trial_id=self._training.trial_id, score=shown.get(key))


@contextmanager
def model_at_hand(model: str, *, storage: str | Path, tracking_uri: str | None = None) -> Iterator[Path]:
    """The folder of a model: as given, or for the length of a block a copy from a bucket or from MLflow.

    Args:
        model: a folder, the URI of a trial, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        storage: whose own MLflow store is asked where no server is named.
        tracking_uri: of MLflow; None: `MLFLOW_TRACKING_URI`, else the storage's own store.

    Raises:
        BadInput: it is not there. Unavailable: bucket or MLflow does not answer.
    """
    if not model.startswith(SCHEME):
        with checkpoint_at_hand(model) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dpsweep-") as copy:
        yield _downloaded(model, tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or store_of(Path(storage)), Path(copy))


def _downloaded(model: str, uri: str, target: Path) -> Path:
    named = _VERSION.fullmatch(model)
    if named is None:
        raise BadInput(f"{model}: expected {SCHEME}NAME/VERSION or {SCHEME}NAME@ALIAS")
    client = connect(take_credentials(uri))
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    name, version = named["name"], named["version"]
    try:
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, named["alias"])
        source = client.get_model_version_download_uri(name, found.version)
        return Path(download_artifacts(artifact_uri=source, dst_path=str(target), tracking_uri=uri))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise BadInput(f"{model}: MLflow at {uri} has no such model ({error.message})") from None
        raise Unavailable(f"{model}: MLflow at {uri} does not give it: {error.message}") from None
    except OSError as error:
        raise Unavailable(f"{model}: its files cannot be fetched: {error}") from None
