"""The answer of a sweep at each ε, in one sentence: what was reached, how sure that is, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dpcore.config import METHODS
from sweeps.report.text import percent

if TYPE_CHECKING:
    from dpcore.config import TrialConfig
    from sweeps.report.comparison import Comparison

Verdict = Literal["worth it", "not worth it", "within noise", "not clear", "nothing done"]
WORDS: dict[Verdict, str] = {
    "worth it": "worth its price",
    "not worth it": "not worth its price",
    "within noise": "within noise, so not clear whether worth its price",
    "not clear": "not clear whether worth its price",
    "nothing done": "nothing done",
}
BAR = "the higher of floor and control"


def _label(method: str) -> str:
    found = METHODS.find(method)
    return method if found is None or not found.label else found.label


def _in_effect(config: TrialConfig) -> str:
    """The own method that takes the same steps: a subspace of full rank projects nothing, and λ = 0 leaves views out of the gradients."""
    leaves_out = (config.subspace.rank == "full", config.public_weight == 0)
    same = {
        "projected": ("dpsgd", "projected", "dpsgd"),
        "feature": ("feature", "dpsgd", "dpsgd"),
        "feature_projected": ("feature", "projected", "dpsgd"),
    }
    of_rank, of_weight, of_both = same.get(config.method, (config.method,) * 3)
    return {(True, False): of_rank, (False, True): of_weight, (True, True): of_both}.get(leaves_out, config.method)


@dataclass(frozen=True, kw_only=True)
class EpsilonAnswer:
    """Of one ε.

    Attributes:
        comparison: the winner, its fresh seeds and what they are held against.
        price: what choosing cost, for the middle of a sentence.
        total: ε of the whole procedure, choosing included, after "at".
        metric: title of the score.
    """

    comparison: Comparison
    price: str
    total: str
    metric: str

    @property
    def verdict(self) -> Verdict:
        """Whether the winner is worth its price: by the 95 % intervals of its gain over the bar, over the floor and over the control."""
        one = self.comparison
        if one.winner is None:
            return "nothing done"
        if one.interval is None:
            return "not clear"
        if one.interval.high < 0:
            return "not worth it"
        return "worth it" if min(gain.low for gain in (one.interval, *one.gains.values())) > 0 else "within noise"

    @property
    def method(self) -> str:
        """The winner's method for people. Where its settings leave a part of it out, it says which method that makes of it."""
        if self.comparison.winner is None:
            return "–"
        config = self.comparison.winner.config
        name, part = _label(config.method), _in_effect(config)
        return name if part == config.method else f"{name}, which with these settings is {_label(part)}"

    @property
    def reached(self) -> str:
        """The score with what it rests on: fresh seeds where there are some, else the best trial, which is a little too high."""
        one = self.comparison
        if one.seed_mean is not None:
            count = len(one.seed_scores)
            seeds = f"mean of {count} fresh seeds" if count > 1 else "one fresh seed"
            return f"{_with_error(one.seed_mean, one.errors.get('seeds'))} % ({seeds})"
        about = "best trial, one run" if one.is_divided else "best trial, a little too high"
        return f"{_with_error(one.winner_score, one.errors.get('winner'))} % ({about}; no fresh seeds)"

    def headline(self) -> str:
        """What was reached at the price of everything: the line that a report begins with."""
        one = self.comparison
        if one.winner is None:
            return f"trials of ε = {one.epsilon:g}: no private trial is done"
        counted = "" if one.people is None else f", {one.people} people that no search saw" if one.is_divided else f", {one.people} people"
        return f"{self.metric} {self.reached}{counted} at {self.total}: {self.method}; one trial alone has ε = {one.epsilon:g}"

    def method_lines(self) -> list[str]:
        """The best method against each other one."""
        found = []
        for one in self.comparison.method_gains:
            pair = f"ε = {self.comparison.epsilon:g}: {one.method} against {one.other}"
            if one.gain is None:
                found.append(f"{pair}: not clear, it takes two fresh seeds of both (references.seeds_of: each_method)")
            else:
                found.append(f"{pair}: {one.gain.text()}: {'clear' if one.gain.is_clear else 'within noise'}")
        return found

    @property
    def gained(self) -> str:
        """The gain over the bar with its 95 % interval, or why there is none."""
        one = self.comparison
        if one.gain is None:
            return "no fresh seeds or no floor to compare with"
        points = f"{100 * one.gain:+.1f} points against {BAR}"
        if one.interval is None:
            return f"{points}; {self._why_unclear()}"
        return f"{points} (95 %: {100 * one.interval.low:+.1f} to {100 * one.interval.high:+.1f})"

    def sentence(self) -> str:
        """The answer."""
        if self.comparison.winner is None:
            return f"At ε = {self.comparison.epsilon:g} no private trial is done."
        return (
            f"At ε = {self.comparison.epsilon:g}, {self.method} reaches {self.metric} {self.reached}: {self.gained}. "
            f"Price of finding it: {self.price}."
        )

    def line(self) -> str:
        """The verdict for the terminal."""
        one = self.comparison
        where = f"ε = {one.epsilon:g}:"
        if one.winner is None:
            return f"{where} no private trial is done"
        if one.gain is None:
            return f"{where} no fresh seeds or no floor to compare with"
        if one.interval is None:
            spread = "" if one.seed_spread is None else f" ({100 * one.seed_spread:.1f} points between seeds)"
            gain = f"{100 * one.gain:+.1f} points against {BAR}{spread}"
            return f"{where} {gain} at a price of {self.price}: not clear, {self._why_unclear()}"
        found = one.interval
        points = f"{100 * found.mean:+.1f} ± {100 * found.stderr:.1f} points against {BAR}"
        sure = f"(95 %: {100 * found.low:+.1f} to {100 * found.high:+.1f})"
        each = "" if len(one.gains) < 2 else "; " + ", ".join(f"against {name} {gain.text()}" for name, gain in one.gains.items())
        return f"{where} {points} {sure}{each} at a price of {self.price}: {WORDS[self.verdict]}"

    def _why_unclear(self) -> str:
        if self.comparison.seed_spread is None:
            return "it takes two fresh seeds"
        return "how it varies between validation people is not known"


def _with_error(score: float | None, error: float | None) -> str:
    return percent(score) if score is None or error is None else f"{percent(score)} ± {percent(error)}"
