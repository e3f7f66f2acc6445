"""The packages that a sweep was run with, and whether other ones may go on with it.

| what differs | what a resume does |
|---|---|
| dpsweep is older than the one that wrote the spec | refused: the files may hold what it does not know |
| dpsweep is newer | goes on; a sweep of 0.1.0 as described in the changelog |
| a package of the arithmetic (torch, numpy, ...) or Python, and private runs are open | refused: they cannot be the same release; with \
`--new-attempt` they go on with fresh noise, charged again |
| the same, and no private run is open | goes on, and says so |
| optuna, of another major version | refused: its journal may have another form |
| optuna, else | goes on, and says so: later draws may be other ones |
| ray, mlflow | goes on. MLflow's own store is checked by its schema (`sweeps.tracking.default_store`) |
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from dpcore.errors import Refused

OTHERS = ("dpsweep", "optuna", "ray", "mlflow")


def installed_versions() -> dict[str, str]:
    """Package → version, of this process."""
    return {"python": platform.python_version(), **{name: version(name) for name in (*OTHERS, *_arithmetic())}}


def refuse_later_version(document: Any, *, where: str) -> None:
    """Checks the raw spec, before it is parsed: a later version may have fields of its own.

    Raises:
        Refused: it was written by a later dpsweep.
    """
    versions = document.get("versions") if isinstance(document, dict) else None
    written, here = (versions or {}).get("dpsweep"), version("dpsweep")
    if written is not None and _numbers(written) > _numbers(here):
        raise Refused(f"{where} was written by dpsweep {written}, and this is {here}: install {written} or a later one")


def check_versions(
    before: Mapping[str, str],
    now: Mapping[str, str],
    *,
    sweep: str,
    open_runs: Sequence[str],
    new_attempt: bool,
    say: Callable[[str], None],
) -> None:
    """Holds the packages of this process against those of the sweep's last driver, by the table above.

    Args:
        before: of the last driver; empty for one of dpsweep 0.1.0, which did not write them down.
        now: `installed_versions`.
        sweep: its name.
        open_runs: private runs that have begun and not ended.
        new_attempt: whether these may go on with fresh noise, charged again.
        say: takes a line for the person who resumes.

    Raises:
        Refused: the message names the packages and what to do.
    """
    changed = {name: (before[name], now[name]) for name in before if name in now and before[name] != now[name]}
    if "optuna" in changed and _numbers(changed["optuna"][0])[0] != _numbers(changed["optuna"][1])[0]:
        raise Refused(f"sweep {sweep}: {_text(changed, 'optuna')}; its studies may have another form: install optuna=={before['optuna']}")
    exact = [name for name in ("python", *_arithmetic()) if name in changed]
    if exact and open_runs and not new_attempt:
        shown = ", ".join(open_runs[:3]) + (", ..." if len(open_runs) > 3 else "")
        pins = " ".join(f"{name}=={before[name]}" for name in exact if name != "python")
        back = f"install {pins}" if pins else f"use Python {before['python']}"
        raise Refused(
            f"sweep {sweep}: {_text(changed, *exact)}. {len(open_runs)} private runs are open ({shown}) and cannot be the same release "
            f"under other packages. {back[0].upper()}{back[1:]}, or let them go on with fresh noise, charged again: "
            f"`dpsweep resume {sweep} --new-attempt`"
        )
    said = [name for name in (*exact, "optuna") if name in changed]
    if said:
        effect = "open runs go on as new attempts, charged again" if exact and open_runs else "no open run depends on it"
        say(f"dpsweep: {_text(changed, *said)}; {effect}")


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 2.11.0+cpu is (2, 11, 0)."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else (0,)


def _text(changed: Mapping[str, tuple[str, str]], *names: str) -> str:
    return ", ".join(f"{name} was {changed[name][0]} and is {changed[name][1]}" for name in names)


def _arithmetic() -> tuple[str, ...]:
    from dpcore.train.replay import ARITHMETIC  # with torch, which a command that only reads does not need

    return ARITHMETIC
