"""What a trial of a study remembers of its record, and how it is read back. No Optuna: `dpsweep status` looks without it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from dpcore.config import TrialConfig, parse_config
from dpcore.durable import without_sum
from dpcore.errors import Corrupt
from dpcore.privacy.plan import PrivacyPlan
from sweeps.records.results import State, TrialRecord

END, REPLACED = "end", "replaced"
"""Attribute of a trial that ended: its seconds, its error, and whether another took its place."""
RECORD = "record"
"""Attribute of a trial that was handed out: its record's plan."""
ENDED: dict[str, State] = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
"""Optuna's name of the state of a trial that ended, and ours."""


class StateName(Protocol):
    """A state by Optuna's name for it."""

    @property
    def name(self) -> str:
        """RUNNING, COMPLETE, PRUNED, FAIL or WAITING."""


class AnyTrial(Protocol):
    """A trial of a study: Optuna's own, or one that was read without Optuna."""

    @property
    def number(self) -> int:
        """Within its study."""

    @property
    def state(self) -> StateName:
        """As it was last told."""

    @property
    def user_attrs(self) -> Mapping[str, Any]:
        """What the search keeps with it."""


def is_replaced(trial: AnyTrial) -> bool:
    """Whether another trial took its place, so that it is not counted."""
    return bool(trial.user_attrs.get(END, {}).get(REPLACED))


def record_of(trial: AnyTrial, *, where: str) -> TrialRecord:
    """The record that a trial of a study remembers, without its curve.

    Raises:
        Corrupt: it is not what was written; `where` names the study's storage.
    """
    try:
        return _record(trial)
    except (Corrupt, ValueError, LookupError, TypeError, AttributeError) as error:
        raise Corrupt(f"{where}: what it remembers of its trial {trial.number} is no record ({error!r}); put a copy back") from None


def _record(trial: AnyTrial) -> TrialRecord:
    told = [json.loads(trial.user_attrs[RECORD]), trial.user_attrs.get("attempt", {})]
    known: dict[str, Any] = {name: value for one in told for name, value in without_sum(one, where=f"trial {trial.number}").items()}
    config, planned = parse_config(TrialConfig, known.pop("config")), known.pop("plan", None)
    record = TrialRecord(config=config, plan=None if planned is None else PrivacyPlan(**planned), **known)
    if trial.state.name == "RUNNING":
        return replace(record, state="running")
    end = without_sum(trial.user_attrs[END], where=f"the end of trial {trial.number}")
    return replace(
        record, state=ENDED[trial.state.name], seconds=float(end["seconds"]), error=end["error"], fulfilled=end.get("fulfilled", True)
    )
