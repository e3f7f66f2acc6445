"""Every sweep of a storage in one line each, from its tables alone: no study is opened and nothing is priced anew."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dpcore.durable import read_json
from dpcore.errors import BadInput, Corrupt
from sweeps.records.folder import is_unfinished
from sweeps.records.results import title_of
from sweeps.records.spec import SPEC_FILE, SweepSpec
from sweeps.report.status import driver_lives

ENDED = ("done", "pruned", "failed")
COLUMNS = ("trial_id", "role", "epsilon", "state", "score", "method")


@dataclass(frozen=True, kw_only=True)
class EpsilonLine:
    """One ε of a listed sweep: how many trials of its search have ended, of how many; its best score as a fraction, and whose."""

    epsilon: float
    ended: int
    best: float | None
    method: str | None


@dataclass(frozen=True, kw_only=True)
class SweepLine:
    """A sweep as `dpsweep list` shows it.

    Attributes:
        state: as `dpsweep status` says it, judged by the tables: `running`, `finishing`, `done`, `failed`, `interrupted`; or `damaged`.
        metric: the title of what `best` is.
        price: ε of the whole sweep; None under `unaccounted`, and until the sweep has ended.
        accounting: the regime. protected: whether its private data are of real people; None before its first table.
        age_s: seconds since its tables or its spec last changed.
        problem: why its spec or its tables cannot be read; None where they can.
    """

    name: str
    state: str
    metric: str = ""
    epsilons: tuple[EpsilonLine, ...] = ()
    price: float | None = None
    accounting: str = ""
    protected: bool | None = None
    age_s: float = 0.0
    problem: str | None = None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def list_folder(storage: Path) -> tuple[SweepLine, ...]:
    """The sweeps of a folder, the newest change first. One that is damaged is listed as such.

    Raises:
        BadInput: there is no such folder.
    """
    if not storage.is_dir():
        raise BadInput(f"{storage}: no such folder; --storage names the folder of the sweeps (`dpsweep run` makes it)")
    lines = [_line(path.parent.name, storage, path) for path in storage.glob(f"*/{SPEC_FILE}")]
    return tuple(sorted(lines, key=lambda one: (one.age_s, one.name)))


def _line(name: str, storage: Path, path: Path) -> SweepLine:
    age_s = max(0.0, time.time() - _changed(path))
    try:
        spec = SweepSpec.load(name, storage)
        facts, rows = _facts(spec), _rows(spec)
    except (Corrupt, BadInput) as error:
        return SweepLine(name=name, state="damaged", age_s=age_s, problem=str(error))
    return SweepLine(
        name=name,
        state=_state(spec, facts, rows),
        metric=title_of(spec.metric),
        epsilons=tuple(_at(rows, epsilon) for epsilon in spec.space.sweep.epsilons),
        price=facts.get("sweep_epsilon"),
        accounting=spec.space.sweep.accounting,
        protected=facts.get("protected"),
        age_s=age_s,
    )


def _changed(spec_file: Path) -> float:
    tables = spec_file.parent / "results" / "sweep.json"
    return max(path.stat().st_mtime for path in (spec_file, tables) if path.exists())


def _facts(spec: SweepSpec) -> dict[str, Any]:
    path = spec.sweep_dir / "results" / "sweep.json"
    found = read_json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _rows(spec: SweepSpec) -> list[dict[str, Any]]:
    """The columns of the trials that a line is made of: of a thousand trials in milliseconds, as their configs are not read.

    Raises:
        Corrupt: the table does not read.
    """
    path = spec.sweep_dir / "results" / "trials.parquet"
    if not path.is_file():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        there = [name for name in COLUMNS if name in file.schema_arrow.names]
        rows: list[dict[str, Any]] = file.read(columns=there).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); `dpsweep resume {spec.name}` writes it again") from None
    return rows


def _state(spec: SweepSpec, facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    is_over = bool(facts) and sum(row["state"] in ENDED for row in rows) >= facts.get("planned", 0)
    if driver_lives(spec):
        return "finishing" if is_over else "running"
    if is_unfinished(spec):
        return "finishing" if is_over else "interrupted"
    return "failed" if facts.get("stopped_by") else "done" if is_over else "interrupted"


def _at(rows: list[dict[str, Any]], epsilon: float) -> EpsilonLine:
    searched = [row for row in rows if row["role"] == "search" and row["epsilon"] == epsilon]
    scored = [row for row in searched if row["state"] == "done" and row.get("score") is not None]
    best = max(scored, key=lambda row: row["score"], default=None)
    return EpsilonLine(
        epsilon=epsilon,
        ended=sum(row["state"] in ENDED for row in searched),
        best=None if best is None else best["score"],
        method=None if best is None else best["method"],
    )
