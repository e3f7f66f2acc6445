"""How methods and references look in every figure of the page, and what a trial says when it is pointed at."""

from __future__ import annotations

from dataclasses import dataclass

from dpcore.config import METHODS
from sweeps.records.results import TrialRecord
from sweeps.report.details.details import ShownTrial
from sweeps.report.details.settings import SearchedSetting, text_of
from sweeps.report.text import number, percent

INK = "#1b1f24"


@dataclass(frozen=True, kw_only=True)
class MarkStyle:
    """Name, colour and marker of a method or a reference. Nothing is told apart by colour alone."""

    name: str
    colour: str
    marker: str
    dash: str = ""


# Vermillion, sky blue and grey of Okabe and Ito (2008); methods have the others.
FLOOR = MarkStyle(name="floor", colour="#d55e00", marker="_", dash="floor")
CONTROL = MarkStyle(name="control", colour="#56b4e9", marker="_", dash="control")
CEILING = MarkStyle(name="ceiling", colour="#6e7781", marker="_", dash="ceiling")


def look_of(method: str) -> MarkStyle:
    """The look of a method; one whose package is gone has its name."""
    found = METHODS.find(method)
    if found is None:
        return MarkStyle(name=method, colour="#777777", marker="v")
    return MarkStyle(name=found.label or found.name, colour=found.colour, marker=found.marker)


def told(one: ShownTrial, settings: tuple[SearchedSetting, ...]) -> str:
    """What a trial says when it is pointed at."""
    shown = [f"{setting.label}: {text_of(one.drawn[setting.path])}" for setting in settings if setting.path in one.drawn]
    return "\n".join([told_score(one.record), *shown])


def told_score(record: TrialRecord) -> str:
    """Name, score and ε of a run."""
    score = f"{percent(record.score)} %" if record.score is not None else "no score"
    spent = "" if record.epsilon_spent is None else f", spent ε {number(record.epsilon_spent)}"
    return f"{record.trial_id}: {score}{spent}"
