"""The names of trials and of the ε that they belong to: every form of them is made and read here.

| text | kind | what it names |
|---|---|---|
| `e0.8-003`, `e0.8-5f09c1a2b3` | search | a trial of the search: its number, or in a private selection a random label |
| `seed-e0.8-1`, `seed-e0.8-dpsgd-1` | seed | a rerun of the winner, or of the best trial of a method |
| `control-e0.8` | control | the best feature run without its private part |
| `selection-e0.8` | selection | a whole private selection, in the ledger |
| `public-start`, `floor-blur_10`, `ceiling` | plain | anything else |

Each may end in `.again`, once per replacement of a trial whose key was lost. In the ledger it may end in `/score`, the line of its score,
or in `/to-18`, the line of its steps up to the rung of a ladder at step 18.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

from dpcore.errors import BadInput

TrialKind = Literal["search", "seed", "control", "selection", "plain"]

AGAIN, SCORE, RUNG = ".again", "/score", "/to-"
CLOSENESS = 1e-9
"""Relative. Two ε that a person would write alike differ by less."""

_KINDS: dict[str, TrialKind] = {"": "search", "seed-": "seed", "control-": "control", "selection-": "selection"}
_PREFIXES = {kind: prefix for prefix, kind in _KINDS.items()}
_LABELLED = ("search", "seed")
_TO_RUNG = re.compile(rf"(.+){RUNG}(\d+)", re.DOTALL)
_AT_EPSILON = re.compile(r"(seed-|control-|selection-|)e(\d[\d.]*(?:e[+-]?\d+)?)(?:-(.+))?", re.DOTALL)


def epsilon_name(epsilon: float) -> str:
    """An ε as part of a name: six digits where they are exact, else all of them. Different ε have different names."""
    short = f"{epsilon:g}"
    return short if float(short) == epsilon else repr(float(epsilon))


def alias_of(epsilon: float, *, of: Literal["best", "trained"] = "best") -> str:
    """The alias of the best model version at an ε, or of the one trained last: `best-eps-0_8` (MLflow takes no dots)."""
    return f"{of}-eps-{epsilon_name(epsilon)}".replace(".", "_").replace("+", "")


def study_of(epsilon: float) -> str:
    """The name of the study of an ε within its sweep."""
    return f"epsilon-{epsilon_name(epsilon)}"


def nearest_epsilon(asked: float, listed: Sequence[float], *, where: str) -> float:
    """The one ε of `listed` that a person meant: `asked` itself, else the only one within 1e-9 of it.

    Raises:
        BadInput: there is none, or there are several. The message lists all, exactly.
    """
    near = [one for one in listed if one == asked] or [one for one in listed if abs(one - asked) <= CLOSENESS * abs(asked)]
    if len(near) == 1:
        return near[0]
    there = ", ".join(epsilon_name(one) for one in listed) or "none"
    raise BadInput(f"{where} has {'several' if near else 'no'} ε = {epsilon_name(asked)}; expected one of {there}")


@dataclass(frozen=True, kw_only=True)
class TrialId:
    """The name of a trial, by its parts. `str` gives the text that records, folders, ledger and trackers hold.

    Attributes:
        epsilon: None exactly for a plain name.
        label: what tells it from others of its kind; empty for control and selection.
        replaced: how many trials of this name were replaced before it.
        is_score: whether it names the ledger's line of the trial's score.
        until: the step of the rung that the ledger's line reaches to; None for any other line.

    Raises:
        BadInput: a label is missing or superfluous, or would be read as a suffix.
    """

    kind: TrialKind
    epsilon: float | None = None
    label: str = ""
    replaced: int = 0
    is_score: bool = False
    until: int | None = None

    def __post_init__(self) -> None:
        wants_label = self.kind in (*_LABELLED, "plain")
        if wants_label != bool(self.label) or (self.kind == "plain") != (self.epsilon is None):
            raise BadInput(f"a trial id of kind {self.kind} cannot have label {self.label!r} and ε {self.epsilon}")
        if self.label.endswith((AGAIN, SCORE)) or _TO_RUNG.fullmatch(self.label):
            raise BadInput(
                f"{self.label!r} names a trial and ends in {AGAIN}, {SCORE} or {RUNG}STEP, which dpsweep adds itself; choose another name"
            )

    @classmethod
    def search(cls, epsilon: float, label: int | str) -> Self:
        """A trial of the search: its number, or a label that says nothing of it."""
        return cls(kind="search", epsilon=epsilon, label=label if isinstance(label, str) else f"{label:03d}")

    @classmethod
    def seed(cls, epsilon: float, rerun: int, *, method: str | None = None) -> Self:
        """The `rerun`-th rerun, from 1, of the winner or of the best trial of a method."""
        return cls(kind="seed", epsilon=epsilon, label=str(rerun) if method is None else f"{method}-{rerun}")

    @classmethod
    def control(cls, epsilon: float) -> Self:
        """The control of an ε."""
        return cls(kind="control", epsilon=epsilon)

    @classmethod
    def selection(cls, epsilon: float) -> Self:
        """The private selection of an ε as a whole."""
        return cls(kind="selection", epsilon=epsilon)

    @classmethod
    def floor(cls, split: str, *, converged: bool = False) -> Self:
        """The floor of a split, or the one that is trained to convergence beside it."""
        return cls(kind="plain", label=f"floor-{split}" + ("-converged" if converged else ""))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `str`."""
        is_score, text = text.endswith(SCORE), text.removesuffix(SCORE)
        rung = _TO_RUNG.fullmatch(text)
        text, until = (text, None) if rung is None else (rung[1], int(rung[2]))
        replaced = 0
        while text.endswith(AGAIN):
            text, replaced = text.removesuffix(AGAIN), replaced + 1
        found = _AT_EPSILON.fullmatch(text)
        kind: TrialKind = "plain" if found is None else _KINDS[found[1]]
        if found is None or (kind in _LABELLED) != (found[3] is not None):
            return cls(kind="plain", label=text, replaced=replaced, is_score=is_score, until=until)
        return cls(kind=kind, epsilon=float(found[2]), label=found[3] or "", replaced=replaced, is_score=is_score, until=until)

    def __str__(self) -> str:
        """The text."""
        suffix = AGAIN * self.replaced + ("" if self.until is None else f"{RUNG}{self.until}") + (SCORE if self.is_score else "")
        if self.epsilon is None:
            return f"{self.label}{suffix}"
        return f"{_PREFIXES[self.kind]}e{epsilon_name(self.epsilon)}{'-' + self.label if self.label else ''}{suffix}"

    @property
    def again(self) -> Self:
        """The name of the trial that takes this one's place."""
        return replace(self, replaced=self.replaced + 1)

    @property
    def score(self) -> Self:
        """The name of the ledger's line of this trial's score."""
        return replace(self, is_score=True)

    @property
    def trial(self) -> Self:
        """The trial itself, also where this names its score or its way to a rung."""
        return replace(self, is_score=False, until=None)

    def to_rung(self, until: int | None) -> Self:
        """The name of the ledger's line of this trial's steps up to a rung; None: up to the horizon."""
        return replace(self, until=until)
