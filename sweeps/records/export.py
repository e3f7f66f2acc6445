"""Reads and writes best.yaml: the settings of one trial, and their origin. Training reads this file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, field_validator

from dpcore.config import Part, RuntimeFlags, TrialConfig, parse_config
from dpcore.config.metrics import METRICS, PCKH_50
from dpcore.config.scored_people import ScoredPeople
from dpcore.durable import OWNER_ONLY, replace_file
from dpcore.errors import BadInput, Refused
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import epsilon_name, nearest_epsilon
from sweeps.storage.bucket import check_uri, is_uri


class Origin(Part):
    """The trial behind an exported config: its storage (whose ledger is charged), sweep, id and config fingerprint."""

    storage: str | Path
    sweep: str
    trial_id: str
    fingerprint: str

    @field_validator("storage")
    @classmethod
    def _folder_or_uri(cls, storage: str | Path) -> str | Path:
        return check_uri(str(storage)) if is_uri(storage) else Path(storage)


class Price(Part):
    """What choosing settings cost, in the data that the choice read.

    | epsilon | meaning |
    |---|---|
    | a number > 0 | of the whole sweep, at delta, under `accounting` |
    | 0 | the choice read no private data |
    | None | no end-to-end guarantee, or not known; `text` says which |
    """

    accounting: str
    epsilon: float | None
    delta: float | None
    text: str


UNKNOWN = Price(accounting="unknown", epsilon=None, delta=None, text="what choosing these settings cost is not known here")


class Release(Part):
    """What stands behind exported settings.

    Attributes:
        epsilon_spent: of the trial as it was released, at `delta`; of a private selection's winner that of the selection. None: ε is
            infinite, or not known.
        price: what choosing the settings cost.
    """

    epsilon_spent: float | None
    delta: float | None
    price: Price = UNKNOWN


class ExportedConfig(Part):
    """The content of best.yaml. `origin` is None in a file that a person wrote; then `train` needs `--ledger`.

    `release` is for the reader, and for a training whose sweep is not at hand: `config.epsilon` is the target of one run, which is no
    promise about the choice. `metric` is what the sweep maximised, and what a training reports. `people`: of whom a training's scores are
    counted, those that no search saw; None: all validation people.
    """

    config: TrialConfig
    runtime: RuntimeFlags = RuntimeFlags()
    origin: Origin | None = None
    release: Release | None = None
    metric: Annotated[str, AfterValidator(METRICS.checked)] = PCKH_50
    people: ScoredPeople | None = None


def best_trial(results: SweepResults, epsilon: float) -> TrialRecord:
    """The winner at `epsilon`, or at the one ε of the sweep that is equal to it to 1e-9.

    Raises:
        BadInput: the sweep has no such ε, or no trial there is done.
    """
    found = nearest_epsilon(epsilon, results.epsilons, where=f"sweep {results.name}")
    best = results.best(found)
    if best is None:
        raise BadInput(
            f"sweep {results.name} has no finished trial at ε = {epsilon_name(found)} yet; `dpsweep status {results.name}` shows them"
        )
    return best


def export_trial(record: TrialRecord, spec: SweepSpec, price: Price = UNKNOWN) -> ExportedConfig:
    """The exported config of a trial. For a rehearsal it is the config of the private run."""
    origin = Origin(storage=spec.storage, sweep=spec.name, trial_id=record.trial_id, fingerprint=record.fingerprint)
    release = Release(epsilon_spent=record.epsilon_spent, delta=record.delta or record.config.delta, price=price)
    return ExportedConfig(
        config=record.config.without_proxy(),
        runtime=spec.runtime,
        origin=origin,
        release=release,
        metric=record.metric,
        people=spec.space.sweep.verdict_people,
    )


def write_exported(exported: ExportedConfig, out: Path) -> None:
    """Writes best.yaml, completely or not at all. One that holds the same settings takes the present price.

    Raises:
        BadInput: `out` is a folder, or its folder is missing.
        Refused: `out` already holds something else.
    """
    if out.is_dir() or not out.parent.is_dir():
        raise BadInput(f"--out {out}: expected a file in a folder that exists")
    document = exported.model_dump(mode="json")
    if out.exists():
        known = _read_document(out)
        if not isinstance(known, dict) or any(known.get(part) != document[part] for part in ("config", "runtime", "origin")):
            raise Refused(f"{out} already holds another config; give --out another file")
    replace_file(out, render_yaml(document).encode(), mode=OWNER_ONLY)


def read_exported(path: Path) -> ExportedConfig:
    """Reads the config in `path`.

    Raises:
        BadInput: the file is missing, is not YAML, or has wrong keys or values (one line per mistake).
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such file; `dpsweep best NAME --epsilon E --out {path.name}` writes one")
    document = _read_document(path)
    if not isinstance(document, dict) or "config" not in document:
        raise BadInput(f"{path}: expected the keys config, runtime, origin as `dpsweep best --out` writes them")
    return parse_config(ExportedConfig, document)


def _read_document(path: Path) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not YAML ({' '.join(str(error).split())})") from None


def render_yaml(document: Any) -> str:
    """YAML 1.2 text with the keys in the order given."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()
