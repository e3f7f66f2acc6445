"""Scores by name: what `sweep.metric` may say, and what each score needs and allows. Who computes them lies with `score`. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dpcore.config.registry import Table

PCKH_50 = "pckh_50"
"""The metric of a sweep whose space names none, and of every sweep of an earlier version."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One score of predictions on labelled people; higher is better.

    Attributes:
        name: it is reported as `val/NAME`.
        title: for tables and figures; None: the name.
        score: `module:name` of a function from a `dpcore.pose.metrics.Scored` to a number, or the function. What is no finite number is
            left out.
        why_not: the same of a function from a `dpcore.pose.metrics.Truth` to the reason why these labels give no score, or None. None: any
            labels do.
        people: the same of a function from a `Scored` to (N, 2) counts per person, hits and countable joints: the score is the sum of the
            first over that of the second. None: the score is no mean over people. Then it has no interval, and cannot leave from private
            people under noise.
        asked_only: computed only where a sweep or a command asks for it.
    """

    name: str
    score: str | Callable[[Any], float]
    title: str | None = None
    why_not: str | Callable[[Any], str | None] | None = None
    people: str | Callable[[Any], Any] | None = None
    asked_only: bool = False

    @property
    def shown(self) -> str:
        """For tables and figures."""
        return self.title or self.name


_AT = "dpcore.pose.metrics:"

METRICS = Table(
    "metric",
    Metric,
    (
        Metric(name=PCKH_50, title="PCKh@0.5", score=f"{_AT}pckh_50", why_not=f"{_AT}why_no_pckh", people=f"{_AT}people_pckh_50"),
        Metric(name="pckh_10", title="PCKh@0.1", score=f"{_AT}pckh_10", why_not=f"{_AT}why_no_pckh", people=f"{_AT}people_pckh_10"),
        Metric(
            name="pck_bbox_20",
            title="PCK@0.2 (box)",
            score=f"{_AT}pck_bbox_20",
            why_not=f"{_AT}why_no_pck_bbox",
            people=f"{_AT}people_pck_bbox_20",
            asked_only=True,
        ),
        Metric(
            name="pck_torso_20",
            title="PCK@0.2 (torso)",
            score=f"{_AT}pck_torso_20",
            why_not=f"{_AT}why_no_pck_torso",
            people=f"{_AT}people_pck_torso_20",
            asked_only=True,
        ),
        Metric(name="oks_ap", title="OKS-AP", score="dpcore.pose.oks:oks_ap", why_not="dpcore.pose.oks:why_no_oks", asked_only=True),
    ),
)
