"""What the splits of a sweep disclose: measured before its first trial, kept beside its results, set against accuracy.

An attacker may hold the views under every split of the policy, so next to each split alone stands the join of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from dpcore.config import AttackSettings, Part, SplitConfig, parse_config
from dpcore.disclosure.result import CLOSE, Disclosure
from dpcore.durable import OWNER_ONLY, read_json, replace_file
from sweeps.records.references import public_start_config
from sweeps.report.comparison import score_of
from sweeps.report.text import number, percent

if TYPE_CHECKING:
    from collections.abc import Callable

    from dpcore.disclosure.measure import Measured
    from sweeps.records.results import SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec

FILE = "disclosure.json"
ALL_SPLITS = "all together"


class PolicyDisclosure(Part):
    """What the policy of a sweep shows.

    Attributes:
        splits: one per split in use.
        joint: for who holds all views; None where there is one split.
    """

    splits: tuple[Disclosure, ...] = Field(min_length=1)
    joint: Disclosure | None = None

    def of_split(self, split: SplitConfig) -> Disclosure | None:
        """The split's own; None where it was not measured."""
        return next((one for one in self.splits if one.splits == (split.name,)), None)

    @property
    def of_all(self) -> Disclosure:
        """What who holds all views recovers."""
        return self.joint if self.joint is not None else self.splits[0]

    @property
    def by_name(self) -> dict[str, Disclosure]:
        """Every row of the table."""
        named = {one.splits[0]: one for one in self.splits}
        return named if self.joint is None else {**named, ALL_SPLITS: self.joint}


@dataclass(frozen=True, kw_only=True)
class MeasuredPolicy:
    """The numbers of a policy and, per split, where its pictures lie."""

    policy: PolicyDisclosure
    measured: tuple[Measured, ...]


def measure_policy(spec: SweepSpec, say: Callable[[str], None]) -> MeasuredPolicy | None:
    """Measures every split that a trial of the sweep can have, and their join; None where there is none, or none is wanted.

    The first time takes the public start and some tens of seconds a split; afterwards all of it comes from the cache.

    Raises:
        BadInput: the PUBLIC data do not suffice.
    """
    wanted, splits = spec.space.references.disclosure, spec.space.splits_in_use
    if wanted is False or not splits:
        return None
    from dpcore.disclosure.measure import Laboratory, measure_disclosure

    settings = AttackSettings() if wanted is True else wanted
    say(f"dpsweep: measuring what {', '.join(split.name for split in splits)} disclose, on PUBLIC people")
    laboratory = Laboratory.open(public_start_config(spec.space, seed=spec.seed), settings, places=spec.places, runtime=spec.runtime)
    groups = [(split,) for split in splits] + ([tuple(splits)] if len(splits) > 1 else [])
    measured = tuple(measure_disclosure(group, laboratory) for group in groups)
    found = [one.disclosure for one in measured]
    policy = PolicyDisclosure(splits=tuple(found[: len(splits)]), joint=found[-1] if len(splits) > 1 else None)
    for one in found:
        if one.warning is not None:
            say(f"dpsweep: {'+'.join(one.splits)}: {one.warning}")
    return MeasuredPolicy(policy=policy, measured=measured)


def save_policy(policy: PolicyDisclosure, sweep_dir: Path) -> None:
    """Writes results/disclosure.json."""
    replace_file(sweep_dir / "results" / FILE, policy.model_dump_json(indent=2).encode(), mode=OWNER_ONLY)


def read_policy(sweep_dir: Path) -> PolicyDisclosure | None:
    """What `save_policy` wrote; None where nothing was measured.

    Raises:
        Corrupt: the file is not JSON. BadInput: it is of another make.
    """
    path = sweep_dir / "results" / FILE
    return parse_config(PolicyDisclosure, read_json(path), where=str(path)) if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class DisclosureRow:
    """A split with the best accuracy that it allows. Scores are PCKh@0.5 fractions; None is "no such trial".

    Attributes:
        floor: the best public model trained on its views.
        by_epsilon: the best private trial that reads its views, per ε.
    """

    name: str
    disclosure: Disclosure
    floor: float | None
    by_epsilon: dict[float, float | None]


def disclosure_rows(policy: PolicyDisclosure, results: SweepResults, epsilons: Sequence[float]) -> tuple[DisclosureRow, ...]:
    """One row per split; the join has no accuracy of its own: a trial reads one split."""
    rows = []
    for name, one in policy.by_name.items():
        searched = [record for record in results.records if record.role == "search" and record.split == name]
        rows.append(
            DisclosureRow(
                name=name,
                disclosure=one,
                floor=_best([record for record in results.of_role("floor") if record.split == name]),
                by_epsilon={epsilon: _best([record for record in searched if record.epsilon == epsilon]) for epsilon in epsilons},
            )
        )
    return tuple(rows)


def disclosure_table(rows: Sequence[DisclosureRow]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: what each split shows beside what it allows, scores in percent; the second column is for the terminal's rule."""
    epsilons = list(rows[0].by_epsilon)
    header = ["split", "", "hidden %", "PSNR dB", "SSIM", "original", "view", "reconstruction", "disclosure", "floor"]
    header += [*[f"ε = {epsilon:g}" for epsilon in epsilons], "flag"]
    cells = []
    for one in rows:
        found = one.disclosure
        measured = [
            percent(found.hidden_frac),
            "∞" if found.best.psnr_db is None else f"{found.best.psnr_db:.1f}",
            f"{found.hidden_ssim:.2f}",
            *[percent(score) for score in (found.pckh_original, found.published.pckh_50, found.best.pckh_50)],
            number(found.disclosure, 2),
        ]
        scores = [percent(score) for score in (one.floor, *one.by_epsilon.values())]
        cells.append([one.name, "", *measured, *scores, "" if found.warning is None else "close"])
    return header, cells


DISCLOSURE_NOTES = (
    "- *disclosure* (`split/disclosure`): the share of the pose that a public model reads off the best reconstruction of a public "
    "view, 0 for a blind guess and 1 for the original. *original*, *view*, *reconstruction*: its PCKh@0.5 on them; *SSIM* is over the "
    "hidden pixels. Measured on PUBLIC people that no attacker learned from; private pixels take no part.",
    "- An attacker may try harder than ours: these are lower bounds. *floor* is one such attack: a model trained on the views.",
    f"- *close*: disclosure or SSIM of at least {CLOSE:g}: the public view nearly shows the image.",
)


def _best(records: Sequence[TrialRecord]) -> float | None:
    return max((score for record in records if (score := score_of(record)) is not None), default=None)
