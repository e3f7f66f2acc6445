"""How far a sweep is, for people: what `dpsweep status` prints of the document that `sweeps.report.status` gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sweeps.pricing.duration import span
from sweeps.report.text import number, percent
from sweeps.terminal.tables import render_table

DRIVER_SILENT_S = 120.0
"""A driver gives a sign of life every five seconds, and may wait three minutes for a locked ledger."""
COUNTS = ("planned", "running", "done", "pruned", "failed")


def standing_text(name: str, document: dict[str, Any]) -> str:
    """State, a table with one row per ε, price, what runs, what to do, and the time that is left."""
    return "\n".join(_lines(name, document))


def _lines(name: str, document: dict[str, Any]) -> Iterator[str]:
    reason = "" if document["reason"] is None else f": {document['reason']}"
    yield f"sweep {name}: {document['state']}{reason}"
    rows = [
        [f"{one['epsilon']:g}", "", *[str(one[key]) for key in COUNTS], percent(one["best"]), _leader(one["leader"])]
        for one in document["epsilons"]
    ]
    yield render_table(["ε", "", *COUNTS, f"best {document['metric']} %", "leader"], rows)
    yield (
        f"sweep ε so far: {number(document['sweep_epsilon'])} of {number(document['sweep_epsilon_planned'])} planned "
        f"({document['accounting']})"
    )
    if document["promise"] is not None:
        yield f"counted {document['promise']}"
    for one in document["running"]:
        yield f"running: {one['trial_id']}" + ("" if one["silent_s"] is None else f", last sign of life {span(one['silent_s'])} ago")
    driver = document["driver"]
    if driver is not None and driver["silent_s"] > DRIVER_SILENT_S:
        yield (
            f"the driver (process {driver['pid']} on {driver['host']}) has given no sign of life for {span(driver['silent_s'])}; if it is "
            f"stuck, `dpsweep cancel {name}` ends it and `dpsweep resume {name}` goes on"
        )
    if document["next"] is not None:
        yield str(document["next"])
    if document["seconds_left"]:
        yield f"time left: about {span(document['seconds_left'])}, estimated from the trials that have ended"


def _leader(leader: dict[str, str] | None) -> str:
    return "" if leader is None else f"{leader['trial_id']} ({leader['method']})"
