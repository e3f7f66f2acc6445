"""The settings of a report: which were searched, what each trial had, and in what the winners differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpcore.config import METHODS
from search_spaces.space import Choice, Scalar, value_at

if TYPE_CHECKING:
    from search_spaces.space import Parameter, SpaceFile
    from sweeps.records.results import TrialRecord
    from sweeps.report.comparison import Comparison

SPENDING = ("noise multiplier", "sampling probability", "private steps")


@dataclass(frozen=True, kw_only=True)
class SearchedSetting:
    """One searched setting at one ε.

    Attributes:
        path: in a TrialConfig.
        label: for people: the last part of the path, or the whole path where two settings end alike.
        parameter: its range or list of values.
    """

    path: str
    label: str
    parameter: Parameter

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The values of a list, as text; None of a range."""
        return tuple(map(text_of, self.parameter.choice)) if isinstance(self.parameter, Choice) else None


@dataclass(frozen=True, kw_only=True)
class SettingDifference:
    """A setting in which the winners of two ε differ, or in which all agree: its value at each ε, as text."""

    label: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether not all winners have the same value."""
        return len(set(self.values)) > 1


def searched_settings(space: SpaceFile, epsilon: float) -> tuple[SearchedSetting, ...]:
    """The searched settings at an ε, each after those that its condition reads."""
    parameters = space.parameters_at(epsilon)
    last = [path.rpartition(".")[2] for path in parameters]
    return tuple(
        SearchedSetting(path=path, label=_label(path if last.count(end) > 1 else end), parameter=parameter)
        for (path, parameter), end in zip(parameters.items(), last, strict=True)
    )


def drawn_values(record: TrialRecord, settings: Sequence[SearchedSetting], space: SpaceFile) -> dict[str, Scalar]:
    """Path → value of the settings that are active in a trial. An inactive one is absent."""
    document = record.config.model_dump(mode="json")
    drawn: dict[str, Scalar] = {}
    for one in settings:
        if space.is_active(one.parameter, drawn):
            drawn[one.path] = _scalar(value_at(document, one.path))
    return drawn


def winner_differences(comparisons: Sequence[Comparison], space: SpaceFile) -> tuple[SettingDifference, ...]:
    """Every searched setting and what follows from ε (noise, q, steps), side by side for the winners; empty with fewer than two."""
    won = [(one.epsilon, one.winner) for one in comparisons if one.winner is not None]
    if len(won) < 2:
        return ()
    columns: list[dict[str, str]] = []
    for epsilon, winner in won:
        settings = searched_settings(space, epsilon)
        drawn = drawn_values(winner, settings, space)
        shown = {one.label: _value_text(one.path, drawn[one.path]) if one.path in drawn else "–" for one in settings}
        spending = (winner.noise_multiplier, winner.sampling_prob, winner.config.stages.private.steps)
        columns.append({**shown, **{name: text_of(value) for name, value in zip(SPENDING, spending, strict=True)}})
    labels = dict.fromkeys(label for column in columns for label in column)
    found = [SettingDifference(label=label, values=tuple(column.get(label, "–") for column in columns)) for label in labels]
    return tuple(sorted(found, key=lambda one: not one.differs))


def text_of(value: Any) -> str:
    """A setting for people: four digits of a number, a dash for None."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _value_text(path: str, value: Scalar) -> str:
    """A value for people: a method has a name of its own."""
    method = METHODS.find(value) if path == "method" else None
    return text_of(value) if method is None else method.label or method.name


def _label(path: str) -> str:
    return path.replace("_", " ").replace(".", " · ")


def _scalar(value: Any) -> Scalar:
    """A value of a config as the space names it: a split by its name, rules of what trains as JSON."""
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    return json.dumps(value) if isinstance(value, Mapping | list) else value
