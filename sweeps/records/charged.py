"""The ledger that a sweep is charged to, opened with everything that remembers its lines."""

from __future__ import annotations

import json
from pathlib import Path

from dpcore.errors import Refused
from sweeps.ledger.database import file_of, is_blank
from sweeps.ledger.ledger import Ledger, refuse_loss
from sweeps.ledger.totals import counted
from sweeps.ledger.witness import Witness
from sweeps.records.spec import DELETED_WITNESS, SPEC_FILE, WITNESS_FILE, SweepSpec


def open_ledger(spec: SweepSpec, *, must_exist: bool = False, read_only: bool = False) -> Ledger:
    """The sweep's ledger. The sweep's own witness remembers what it wrote; those of its neighbours in the storage are asked too.

    Raises:
        BadInput, Unavailable, Refused, Corrupt: as `Ledger`.
    """
    return Ledger(
        spec.resolved_ledger_url,
        must_exist=must_exist,
        read_only=read_only,
        witness=spec.ledger_witness,
        others=neighbours_of(spec),
    )


def standing_ledger(spec: SweepSpec) -> Ledger | None:
    """The ledger for a look before a sweep begins, held against its witnesses; None where none was begun.

    Raises:
        Refused: it is gone or went back in time.
    """
    file = file_of(spec.resolved_ledger_url)
    if file is not None and (not file.is_file() or is_blank(file)):
        refuse_loss(file, [Witness(path, sees_all=False) for path in (beside(file), spec.ledger_witness, *neighbours_of(spec))])
        return None
    ledger = open_ledger(spec, read_only=file is not None)
    ledger.require_whole()
    return ledger


def say_earlier_unit(spec: SweepSpec, ledger: Ledger, *, cohort: str, unit: str) -> None:
    """Writes down the unit of the lines that dpsweep 0.1.0 wrote for a sweep which goes on: 0.1.0 kept it in the spec alone.

    Lines of unlike units have no total, so the sweep could not say its price at its end.

    Raises:
        Refused: the ledger holds lines of 0.1.0 of other sweeps too, whose unit this spec does not tell.
    """
    unsaid = {line.sweep for line in counted(ledger.lines(cohort=cohort)) if not line.unit}
    if unsaid - {spec.name}:
        others = ", ".join(sorted(unsaid - {spec.name}))
        raise Refused(
            f"sweep {spec.name} was begun by dpsweep 0.1.0, and the ledger has lines of that version of {others} too, which do not say "
            "their unit of privacy; finish this sweep with dpsweep 0.1.0, or begin it again under another --name"
        )
    if unsaid:
        ledger.state_unit(cohort, unit)


def beside(file: Path) -> Path:
    """The witness of an SQLite ledger."""
    return file.with_name(f"{file.name}.witness")


def neighbours_of(spec: SweepSpec) -> tuple[Path, ...]:
    """The witnesses of other sweeps that share the storage's own ledger, deleted ones too."""
    if spec.ledger_url is not None:
        return ()
    found = sorted(spec.storage_dir.glob(f"*/{DELETED_WITNESS}"))
    for path in sorted(spec.storage_dir.glob(f"*/{SPEC_FILE}")):
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if path.parent.name != spec.name and document["ledger_url"] is None:
                found.append((Path(document["state"]) / path.parent.name if document["state"] else path.parent) / WITNESS_FILE)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another sweep's damaged spec is that sweep's matter, and named when it is opened
    return tuple(path for path in found if path.is_file())
