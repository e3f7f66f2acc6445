"""The spec of a sweep: the checked space, and where and how it runs. It is stored as spec.json, so a resume needs nothing else."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from dpcore.config import Part, Places, RuntimeFlags, parse_config
from dpcore.config.scored_people import ScoredPeople
from dpcore.durable import OWNER_ONLY, replace_file, summed, without_sum
from dpcore.errors import BadInput, Corrupt
from search_spaces.space import HORIZON_PATH, Draw, SpaceFile, value_at
from sweeps.ledger.charges import FilterTerms
from sweeps.records.versions import refuse_later_version
from sweeps.storage.bucket import check_uri, is_uri
from sweeps.storage.urls import check_tracking_scheme, default_store, has_credentials, has_password, sqlite_url

RUN_TRIAL = "dpcore.train.trainer:run_trial"
"""The function behind a trial, as module:function. Any function that yields the same Reports can replace it."""


SPEC_FILE = "spec.json"

WITNESS_FILE = "ledger.witness"
"""In a sweep's state: the ledger lines that it wrote."""
DELETED_WITNESS = "deleted.witness"
"""What a deleted sweep leaves in its folder of the storage: its witness of the storage's own ledger."""

DEFAULT_STORAGE = "sweep_results"
"""Default folder of the sweeps, in the current directory."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A name that is a folder, an MLflow experiment and a study on every system."""

SELECTED = "selected"
"""Attribute of the study of an ε: its private selection has ended."""


REPORTS = 50
"""Of a long trial. Each scores all validation people: every 50 of 17,379 steps they would take as long as the steps."""

FEWEST_REPORTS, CLOSEST_STEPS = 5, 10
"""Of a short trial, so that its learning curve is a curve, and how many steps lie between two of its reports at least."""


def reporting_flags(space: SpaceFile) -> dict[str, int]:
    """How often trials report and keep a checkpoint: a long one about `REPORTS` times, a short one `FEWEST_REPORTS` times, and for a
    stopper early enough that it has something to judge when its grace period ends."""
    horizon, usual = value_at(space.trial, HORIZON_PATH), RuntimeFlags().report_every_steps
    every = usual
    if isinstance(horizon, int) and horizon > CLOSEST_STEPS:
        every = max(min(usual, max(CLOSEST_STEPS, math.ceil(horizon / FEWEST_REPORTS))), math.ceil(horizon / REPORTS))
    if space.sweep.stopper != "none":
        every = min(every, space.stopping_grace_steps)
    elif every == usual:
        return {}
    return {"report_every_steps": every, "checkpoint_every_steps": every}


def _runtime_of(fields: dict[str, Any]) -> RuntimeFlags:
    """How the trials of a sweep run where nobody says otherwise: on the GPU that they ask for, on as many threads as CPUs."""
    if not {"space", "cpus_per_trial", "gpus_per_trial"} <= fields.keys():
        return RuntimeFlags()  # one of them is wrong, which is what will be said
    device = "cuda" if fields["gpus_per_trial"] > 0 else "cpu"
    return RuntimeFlags(device=device, threads=max(1, int(fields["cpus_per_trial"])), **reporting_flags(fields["space"]))


class WarmStart(Part):
    """What a sweep takes from an earlier sweep. It is fixed at the beginning, so a resume does not need the earlier sweep.

    Attributes:
        sweeps: the earlier sweep, followed by the sweeps that it began with itself.
        is_private: whether the settings were chosen on private data.
        draws: ε of the new sweep → settings that its study tries first.
    """

    sweeps: tuple[str, ...]
    is_private: bool
    draws: dict[float, tuple[Draw, ...]]

    def text(self, name: str) -> str:
        """What the price of the sweep `name` does not include."""
        earlier = ", ".join(self.sweeps)
        if not self.is_private:
            return f"begun with settings of {earlier}, which were chosen on PUBLIC data at no cost"
        return (
            f"begun with settings that {earlier} chose on private results. The price of {name} covers only its own trials, not the "
            f"earlier choice; the ledger holds both (dpsweep ledger {name})"
        )


class SweepSpec(Part):
    """The spec of one sweep. It holds no secret: the sweep key is a separate file, and an address with credentials is refused.

    Rules between fields hold here, so a spec from a command, from Python and from a file is the same. The runtime follows from
    CPUs, GPUs and stopper unless it is given. Paths are absolute. A sweep in a bucket has its state elsewhere.

    Layout: `sweep_dir` has spec.json, checkpoints/ and results/. `state_dir` (the same unless `state` is given) has study.journal,
    reports.jsonl, sweep.key and sweep.lock. All sweeps of a storage share the ledger.

    If the storage is the URI of a bucket, `state` is given and the driver writes there. It publishes spec.json, results/ and report/ in the
    bucket (`sweeps.records.publication`). Trials exist only in the bucket.
    """

    name: str = Field(min_length=1)
    space: SpaceFile
    seed: int = Field(default=0, ge=0, description="initialisation, public batches and the search; never private randomness")
    places: Places
    storage: str | Path
    state: Path | None = None
    address: str | None = Field(default=None, description="of a running Ray; None: the sweep starts its own")
    max_concurrent: int | None = Field(default=None, ge=1, description="None: as many as the resources hold")
    cpus_per_trial: float = Field(default=1, gt=0)
    gpus_per_trial: float = Field(default=0, ge=0)
    runtime: RuntimeFlags = Field(default_factory=_runtime_of, description="not given: from CPUs, GPUs and the space's stopper")
    max_failures: int = Field(default=2, ge=0, description="retries of one trial after its worker died")
    trial_timeout_s: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="a trial that reports nothing for so long is ended and retried; None: measured"
    )
    tracking_uri: str | None = None
    study_url: str | None = Field(default=None, description="SQLAlchemy URL without user and password; None: a journal in the state")
    ledger_url: str | None = Field(default=None, description="SQLAlchemy URL; None: SQLite in the storage")
    trial_function: str = RUN_TRIAL
    warm_start: WarmStart | None = Field(default=None, description="the settings of an earlier sweep that this one begins with")
    versions: dict[str, str] = Field(default_factory=dict, description="package → version of the last driver; empty before the first one")
    is_extended: bool = Field(default=False, description="trials or ε were added after results were seen: caps are held by a filter")
    set_aside: tuple[str, ...] = Field(default=(), description="failed trials that others took the place of (`dpsweep retry`)")
    privacy_filter: FilterTerms | None = Field(default=None, description="set when the sweep begins: where q or the steps are searched")

    @property
    def metric(self) -> str:
        """What the search maximises, by its name in `METRICS`."""
        return self.space.sweep.metric

    def people_of(self, role: str) -> ScoredPeople | None:
        """Of whom the scores of a trial are counted, by its role: `search`, or what the verdict rests on; None: of all."""
        return self.space.sweep.search_people if role == "search" else self.space.sweep.verdict_people

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, name: str) -> str:
        if not NAME_PATTERN.fullmatch(name):
            raise ValueError(f"expected letters, digits, '.', '_' and '-' (100 at most, a letter or digit first), given {name!r}")
        return name

    @field_validator("tracking_uri", "study_url")
    @classmethod
    def _holds_no_credentials(cls, url: str | None) -> str | None:
        if url is not None and has_credentials(url):
            raise ValueError(
                "user and password would be stored with the sweep; leave them out and give them to the client "
                "(MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; PGUSER and PGPASSWORD, ~/.pgpass, ~/.my.cnf)"
            )
        return url

    @field_validator("tracking_uri")
    @classmethod
    def _is_a_store(cls, uri: str | None) -> str | None:
        return None if uri is None else check_tracking_scheme(uri)

    @field_validator("places")
    @classmethod
    def _seen_by_workers(cls, places: Places) -> Places:
        return Places.of(places.data_dir, places.cache_dir)

    @field_validator("storage", "state")
    @classmethod
    def _absolute(cls, path: str | Path | None) -> str | Path | None:
        """Makes paths absolute, because workers have another working directory than the driver."""
        return None if path is None else check_uri(str(path)) if is_uri(path) else Path(os.path.abspath(path))

    @model_validator(mode="before")
    @classmethod
    def _state_of_a_bucket(cls, values: Any) -> Any:
        """Beside a bucket, with the ledger in a database, nothing else must outlive this machine: a folder here will do as state."""
        if not isinstance(values, dict) or values.get("state") is not None or values.get("ledger_url") is None:
            return values
        return {**values, "state": DEFAULT_STORAGE} if is_uri(values.get("storage", "")) else values

    @model_validator(mode="after")
    def _uses_what_it_holds(self) -> Self:
        if (self.gpus_per_trial > 0) != (self.runtime.device == "cuda"):
            raise ValueError(
                f"gpus_per_trial {self.gpus_per_trial:g} and runtime.device {self.runtime.device} do not fit: a trial has a GPU exactly if "
                "it computes on cuda; leave runtime.device out, or change gpus_per_trial"
            )
        return self

    @model_validator(mode="after")
    def _computes_on_one_gpu(self) -> Self:
        if self.gpus_per_trial > 1:
            raise ValueError(
                f"gpus_per_trial {self.gpus_per_trial:g}: a trial computes on one GPU, so that its sum has one noise; give at most 1 "
                "(0.5 puts two trials on a GPU). More GPUs run more trials at once"
            )
        return self

    @model_validator(mode="after")
    def _fits_a_bucket(self) -> Self:
        if self.bucket_uri is None:
            return self
        given = f"storage {self.bucket_uri} is a bucket"
        if self.state is None:
            raise ValueError(f"{given}, which cannot hold a lock or a ledger: give --state DIR, local or shared, for study, key and spool")
        if self.space.sweep.regime.is_selection or self.space.references.ceiling == "non_private":
            raise ValueError(
                f"{given}: it cannot hold a private selection or a sealed ceiling, because its versions and access logs keep what was "
                "deleted; give a folder as --storage, or another accounting and references.ceiling=false"
            )
        if self.space.sweep.stopper == "halving":
            raise ValueError(
                f"{given}: a trial that waits on a rung of stopper halving keeps its state in a folder; give one as --storage, or use asha"
            )
        if self.ledger_url is not None and has_password(self.ledger_url):
            raise ValueError(f"{given}, and its spec.json would hold the password of the ledger's URL; put the password into ~/.pgpass")
        return self

    @property
    def bucket_uri(self) -> str | None:
        """The URI of the storage if it is a bucket."""
        return self.storage if isinstance(self.storage, str) else None

    @property
    def storage_dir(self) -> Path:
        """The folder that all sweeps of a storage share, with the ledger and MLflow's default store. For a bucket, the state."""
        if isinstance(self.storage, Path):
            return self.storage
        if self.state is None:
            raise RuntimeError(f"{self.storage} is a bucket without a state")
        return self.state

    @property
    def sweep_dir(self) -> Path:
        """The folder of the sweep's results and checkpoints."""
        return self.storage_dir / self.name

    @property
    def state_dir(self) -> Path:
        """The folder of study, reports, key and lock, on a local or shared file system."""
        return self.sweep_dir if self.state is None else self.state / self.name

    @property
    def trial_runtime(self) -> RuntimeFlags:
        """The runtime with the rank for which a node fits the subspace that all trials share. A single trial does not know it."""
        return self.runtime.model_copy(update={"largest_rank": self.space.largest_rank})

    @property
    def study_path(self) -> Path:
        """Optuna's journal, with one study per ε and one for the references, unless a database holds them."""
        return self.state_dir / "study.journal"

    @property
    def studies_at(self) -> str:
        """Where the studies are, for messages."""
        return str(self.study_path if self.study_url is None else self.study_url)

    @property
    def reports_path(self) -> Path:
        """The file of all reports of all trials, one JSON document per line."""
        return self.state_dir / "reports.jsonl"

    @property
    def selection_dir(self) -> Path:
        """The folder of a private selection's trials, until the winner is known. Mode 0700, deleted at the end."""
        return self.state_dir / "selection"

    @property
    def key_path(self) -> Path:
        """The file of the sweep key (mode 0600), or the file that DPSWEEP_KEY_FILE names."""
        named = os.environ.get("DPSWEEP_KEY_FILE")
        return Path(named) if named else self.state_dir / "sweep.key"

    @property
    def resolved_ledger_url(self) -> str:
        """The ledger's SQLAlchemy URL."""
        return self.ledger_url or sqlite_url(self.storage_dir / "ledger.sqlite")

    @property
    def resolved_tracking_uri(self) -> str:
        """The MLflow store's address."""
        return self.tracking_uri or sqlite_url(self.default_store)

    @property
    def default_store(self) -> Path:
        """MLflow's SQLite file, where no other store is named."""
        return default_store(self.storage_dir)

    @property
    def ledger_witness(self) -> Path:
        """The witness file for the lines that this sweep writes into a ledger on a server. An SQLite ledger has its own witness."""
        return self.state_dir / WITNESS_FILE

    @property
    def sealed_dir(self) -> Path:
        """The folder of sealed runs, each in a subfolder of its name."""
        return self.state_dir / "sealed"

    @property
    def log_path(self) -> Path:
        """What the driver told the terminal, line by line."""
        return self.state_dir / "logs" / "sweep.log"

    @property
    def noise_path(self) -> Path:
        """What libraries told the terminal."""
        return self.state_dir / "logs" / "libraries.log"

    def checkpoint_dir(self, trial_id: str) -> Path:
        """The folder of a trial and all its attempts. A later attempt continues from the checkpoint of an earlier one."""
        return self.sweep_dir / "checkpoints" / trial_id

    def trial_in_bucket(self, trial_id: str) -> str:
        """The path of a trial's snapshots in the bucket."""
        return f"{self.name}/checkpoints/{trial_id}"

    def save(self) -> None:
        """Writes spec.json, completely or not at all. Its keys keep their order, in which a draw takes its settings."""
        document = summed(json.loads(self.model_dump_json(by_alias=True)))
        replace_file(self.sweep_dir / SPEC_FILE, json.dumps(document, indent=2, allow_nan=False).encode(), mode=OWNER_ONLY)

    @classmethod
    def load(cls, name: str, storage: Path) -> Self:
        """The spec of an existing sweep in a folder, which wins over the folder where the sweep began.

        Of one in a bucket: `sweeps.records.publication.load_spec`.

        Raises:
            BadInput: there is no sweep of that name in the storage.
            Corrupt: its spec.json is not a valid spec.
        """
        path = Path(os.path.abspath(storage)) / name / SPEC_FILE
        if not path.is_file():
            there = sorted(p.parent.name for p in Path(storage).glob(f"*/{SPEC_FILE}"))
            raise BadInput(
                f"no sweep {name} in {storage}; there {'are ' + ', '.join(there) if there else 'is none'} (--storage names the folder)"
            )
        return cls.parse(path.read_bytes(), where=str(path))._in_storage(path.parent.parent)

    def _in_storage(self, folder: Path) -> Self:
        """The spec of a sweep that lies in `folder` now: moved or copied since it began, it goes on there and nowhere else.

        A state below the storage moves with it. What was named outside of it on purpose (--state, --ledger, --tracking-uri)
        stays where it is.
        """
        old = self.storage
        if not isinstance(old, Path) or old == folder or (old.exists() and old.samefile(folder)):
            return self
        inside = self.state is not None and self.state.is_relative_to(old)
        state = folder / self.state.relative_to(old) if self.state is not None and inside else self.state
        return self.model_copy(update={"storage": folder, "state": state})

    @classmethod
    def parse(cls, content: bytes, *, where: str) -> Self:
        """Parses a spec.json.

        Raises:
            Corrupt: it is not a valid spec, or not the one that was written. Refused: a later dpsweep wrote it.
        """
        try:
            document = json.loads(content)
            refuse_later_version(document, where=where)
            return parse_config(cls, without_sum(document, where=where) if isinstance(document, dict) else document)
        except ValueError as error:
            raise Corrupt(f"{where} is not a sweep's spec: {error}") from None
