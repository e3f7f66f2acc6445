"""Formats the output of commands: JSON documents for programs, short lines for people."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from sweeps.terminal.tables import render_table as render_table


def print_json(document: Any) -> None:
    """Prints one JSON document. Infinite and undefined numbers become null, because JSON has neither. On a stream that is not UTF-8,
    its letters are JSON's own escapes."""
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    print(json.dumps(finite_or_null(document), indent=2, ensure_ascii=not is_utf8, allow_nan=False))


def finite_or_null(value: Any) -> Any:
    """`value` with every number that JSON cannot hold replaced by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): finite_or_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(item) for item in value]
    return value


def percent(fraction: float | None, digits: int = 1) -> str:
    """A score for people: `61.3`, or a dash for None."""
    if fraction is None or math.isnan(fraction):
        return "–"
    return f"{100 * fraction:.{digits}f}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: `0.798`, `∞`, or a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{digits}f}"
