"""Measures what the splits of a sweep disclose, stores it with the results, and compares it with accuracy.

An attacker may hold the views under every split of the policy. So the table has a row for each split and one for all together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from dpcore.config import AttackSettings, Part, SplitConfig, parse_config
from dpcore.durable import OWNER_ONLY, read_json, replace_file
from dpcore.privacy.disclosure import CLOSE, Disclosure
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
    """What the splits of a sweep disclose.

    Attributes:
        splits: one per split in use.
        joint: for an attacker with the views of all splits; None with a single split.
    """

    splits: tuple[Disclosure, ...] = Field(min_length=1)
    joint: Disclosure | None = None

    def of_split(self, split: SplitConfig) -> Disclosure | None:
        """The disclosure of one split, or None if it was not measured."""
        return next((one for one in self.splits if one.splits == (split.name,)), None)

    @property
    def of_all(self) -> Disclosure:
        """What an attacker with all views recovers."""
        return self.joint if self.joint is not None else self.splits[0]

    @property
    def by_name(self) -> dict[str, Disclosure]:
        """Every row of the table."""
        named = {one.splits[0]: one for one in self.splits}
        return named if self.joint is None else {**named, ALL_SPLITS: self.joint}


@dataclass(frozen=True, kw_only=True)
class MeasuredPolicy:
    """The numbers of a policy, and the stored pictures of each split."""

    policy: PolicyDisclosure
    measured: tuple[Measured, ...]


def attack_settings(spec: SweepSpec) -> AttackSettings | None:
    """How the splits of a sweep are attacked; None if it has no split, or does not want the measurement."""
    wanted = spec.space.references.disclosure
    if wanted is False or not spec.space.splits_in_use:
        return None
    return AttackSettings() if wanted is True else wanted


def measure_policy(spec: SweepSpec, say: Callable[[str], None]) -> MeasuredPolicy | None:
    """Measures every split that a trial of the sweep can have, and all of them together.

    The first call trains the public start and takes tens of seconds per split. Later calls read the cache.

    Returns:
        None if the sweep has no split, or if it does not want the measurement.

    Raises:
        BadInput: there are too few PUBLIC data.
    """
    settings, splits = attack_settings(spec), spec.space.splits_in_use
    if settings is None:
        return None
    from dpcore.disclosure.measure import Laboratory, measure_disclosure

    groups = [(split,) for split in splits] + ([tuple(splits)] if len(splits) > 1 else [])
    config = public_start_config(spec.space, seed=spec.seed)
    laboratory = Laboratory.open(config, settings, places=spec.places, runtime=spec.runtime, wanted=groups)
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
    """Reads what `save_policy` wrote, or None if nothing was measured.

    Raises:
        Corrupt: the file is not JSON. BadInput: its content does not fit this version.
    """
    path = sweep_dir / "results" / FILE
    return parse_config(PolicyDisclosure, read_json(path), where=str(path)) if path.is_file() else None


@dataclass(frozen=True, kw_only=True)
class DisclosureRow:
    """A split and the best accuracy that it allows. Scores are PCKh@0.5 fractions; None means "no such trial".

    Attributes:
        floor: the best public model trained on its views.
        by_epsilon: the best private trial that reads its views, per ε.
    """

    name: str
    disclosure: Disclosure
    floor: float | None
    by_epsilon: dict[float, float | None]


def disclosure_rows(policy: PolicyDisclosure, results: SweepResults, epsilons: Sequence[float]) -> tuple[DisclosureRow, ...]:
    """One row per split and one for all together. The latter has no accuracy, because a trial reads one split."""
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
    """Header and cells: the disclosure of each split and the accuracy that it allows. Scores are in percent.

    The second column is empty. `render_table` aligns two columns to the left.
    """
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
    "hidden pixels. It is measured on PUBLIC people that no attacker was trained on. No private pixel is used.",
    "- These are lower bounds: a real attacker may do better than ours. *floor* is one such attack: a model trained on the views.",
    f"- *close*: disclosure or SSIM of at least {CLOSE:g}: the public view nearly shows the image.",
)


def _best(records: Sequence[TrialRecord]) -> float | None:
    return max((score for record in records if (score := score_of(record)) is not None), default=None)
