"""Writes a first space for somebody's data: a commented file whose sizes, batches and rules fit what was found there.

It knows no dataset: the facts come as numbers and names. What it writes is read back by `load_space` before anybody gets it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dpcore.config import PrivacyUnit
from search_spaces.schema import MODELINE, SCHEMA_FILE

BATCH_FRAC, LEAST_BATCH, MOST_BATCH = 0.06, 256, 1024
"""Expected batch: this share of N, as in the measured presets; of a small N more, since only a larger batch hides the noise."""
BLUR_FRAC = 0.04
"""Blur of the public view, of the crop's longer side: between that of `quick` (0.047) and `lspet` (0.034)."""
MOVENET_LAYERS = ("b2.add", "b5.add", "b12.add", "fpn4.pw", "fpn8.pw", "heat.out", "center.out")
LARGE_PX = 128
"""From this crop size on, coordinates are read on a coarser grid than the pixels, as in `lspet`."""


@dataclass(frozen=True, kw_only=True)
class FoldedStart:
    """Public weights below the data directory that a network can start from. `has_heat_maps`: they show every joint of the skeleton."""

    weights: str
    has_heat_maps: bool


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What a first space must know of the data.

    Attributes:
        private, public, validation: their names. proxy: a PUBLIC dataset in the private part's place; proxy_units: how many it has.
        height_px, width_px: of every crop.
        skeleton: its name. joints: how many.
        protected: whether the private people are to be protected.
        private_rows, public_rows: crops that batches are drawn from; they bound batches and never stand in the file as a number of people.
        private_units: how many privacy units the batches of public views are drawn from.
        metric: the first one that the validation data can give.
        start: public weights that fit; None: a small network from scratch.
    """

    private: str
    public: str
    validation: str
    height_px: int
    width_px: int
    skeleton: str
    joints: int
    protected: bool
    private_rows: int
    private_units: int
    public_rows: int
    metric: str
    proxy: str | None = None
    proxy_units: int | None = None
    start: FoldedStart | None = None


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a person decides. `nominal_examples`: N, a number that may be known to everybody. `trials`: per ε; `reruns`: of the winner."""

    nominal_examples: int
    epsilons: tuple[float, ...]
    trials: int = 12
    reruns: int = 2
    labels: Literal["public", "private"] = "public"
    unit: PrivacyUnit = "image"


def expected_batch(nominal: int) -> int:
    """The expected batch for N privacy units: a power of two where N has room for it, at most N.

    >>> [expected_batch(n) for n in (8, 240, 1000, 4000, 8500, 100000)]
    [4, 120, 256, 256, 512, 1024]
    """
    wanted = max(BATCH_FRAC * nominal, min(LEAST_BATCH, nominal / 2))
    rounded = 2 ** round(math.log2(wanted)) if wanted >= LEAST_BATCH else int(wanted)
    return max(1, min(rounded, MOST_BATCH, nominal))


def fitted_space(facts: DataFacts, wishes: Wishes) -> str:
    """The text of the space file."""
    sections = (
        _head(facts, wishes),
        _sweep(facts, wishes),
        _references(facts, wishes),
        _splits(facts),
        _trial(facts, wishes),
        _search(facts),
    )
    return "\n".join(line for section in sections for line in section) + "\n"


def _head(facts: DataFacts, wishes: Wishes) -> Sequence[str]:
    who = "real people, protected" if facts.protected else "a stand-in: nobody to protect"
    return (
        f"{MODELINE}{SCHEMA_FILE}",
        f"# {facts.private}: {who}. {facts.joints} joints ({facts.skeleton}), crops of {facts.height_px}x{facts.width_px} px.",
        "# `dpsweep run FILE --dry-run` shows what this would run, what it would cost, and what more people would buy.",
    )


def _sweep(facts: DataFacts, wishes: Wishes) -> Sequence[str]:
    epsilons = ", ".join(f"{epsilon:g}" for epsilon in wishes.epsilons)
    accounting = "public_proxy" if facts.proxy is not None else "composed"
    if facts.proxy is not None:
        why = "the search reads PUBLIC data alone and costs nothing; the final training is charged"
    elif facts.protected:
        why = "every trial is charged; with a third PUBLIC dataset (init --proxy) the search would cost nothing"
    else:
        why = "every trial's result may be shown, and every trial is charged"
    return (
        "sweep:",
        f"  epsilons: [{epsilons}]".ljust(40) + "# of each trial; the sweep as a whole costs more",
        f"  trials_per_epsilon: {wishes.trials}".ljust(40) + "# fewer cost less: the plan says how much",
        "  sampler: tpe",
        "  method_shares: equal".ljust(40) + "# each method gets as many trials as any other",
        "  validation_search_frac: 0.5".ljust(40) + "# of the validation people; the others, whom no search saw, decide",
        f"  accounting: {accounting}".ljust(40) + f"# {why}",
        f"  metric: {facts.metric}".ljust(40) + "# what the search maximises on the validation data",
        f"  # delta: {1 / (10 * wishes.nominal_examples):.3g}".ljust(40) + "# its default: one tenth over N",
    )


def _references(facts: DataFacts, wishes: Wishes) -> Sequence[str]:
    ceiling = (
        "  ceiling: false".ljust(40) + "# training without privacy is refused on protected people"
        if facts.protected
        else "  ceiling: true".ljust(40) + "# the same without privacy: what there is to win"
    )
    return (
        "references:",
        "  floor: true".ljust(40) + "# what costs no privacy: a private run has to beat it",
        ceiling,
        "  control: true".ljust(40) + "# the best feature run with its private part off",
        f"  winner_seeds: {wishes.reruns}".ljust(40) + "# reruns of the winner, charged like trials",
    )


def _blur_px(facts: DataFacts) -> float:
    return max(1.0, round(2 * BLUR_FRAC * max(facts.height_px, facts.width_px)) / 2)


def _splits(facts: DataFacts) -> Sequence[str]:
    blur = _blur_px(facts)
    name = f"blur_{blur:g}".replace(".", "_")
    return (
        "splits:".ljust(42) + "# what of each picture counts as public: your decision",
        f"  {name}: {{transform: gaussian_blur, sigma_px: {blur:g}}}",
    )


def _split_name(facts: DataFacts) -> str:
    return f"blur_{_blur_px(facts):g}".replace(".", "_")


def _trial(facts: DataFacts, wishes: Wishes) -> Sequence[str]:
    batch = expected_batch(facts.proxy_units or wishes.nominal_examples) if facts.proxy else expected_batch(wishes.nominal_examples)
    data = [
        f"    private: {facts.private}",
        *([f"    proxy: {facts.proxy}", f"    proxy_examples: {facts.proxy_units}"] if facts.proxy is not None else []),
        f"    public: {facts.public}",
        f"    validation: {facts.validation}".ljust(40) + "# declared PUBLIC: scores on it promise nothing to its people",
        f"    nominal_examples: {wishes.nominal_examples}".ljust(40) + f"# N {_plural(wishes.unit)}, a number that may be known",
    ]
    view_batch = max(1, min(64, facts.private_rows // 2))
    return (
        "trial:".ljust(42) + "# what is not searched",
        "  data:",
        *data,
        f"  privacy_unit: {wishes.unit}".ljust(40) + "# what is protected, and what N and the batch count",
        f"  labels: {wishes.labels}".ljust(40) + _about_labels(wishes),
        "  model:",
        *_model(facts),
        "  stages:",
        f"    public: {_public_stage(facts)}",
        f"    public_view: {{until: converged, max_steps: 400, batch_size: {view_batch}, learning_rate: 1.0e-3}}",
        f"    private: {{steps: 60, expected_batch_size: {batch}}}".ljust(58) + f"# q = {batch / wishes.nominal_examples:.3g}",
        "  optimizer: {name: adam, schedule: cosine}",
        "  ema_decay: 0.9",
        f"  subspace: {{examples: {min(256, facts.public_rows)}}}".ljust(40) + "# PUBLIC people that a subspace is fitted to",
    )


def _plural(unit: PrivacyUnit) -> str:
    return {"person": "people", "image": "images", "video": "videos"}[unit]


def _about_labels(wishes: Wishes) -> str:
    if wishes.labels == "private":
        return "# keypoints stay private: a public teacher replaces them"
    return "# keypoints, boxes and head sizes count as public"


def _model(facts: DataFacts) -> Sequence[str]:
    size = [f"    input_height_px: {facts.height_px}".ljust(40) + "# the size of the crops", f"    input_width_px: {facts.width_px}"]
    large = max(facts.height_px, facts.width_px) > LARGE_PX
    grid = (
        ["    split_ratio: 0.5".ljust(40) + "# bins per pixel that coordinates are read on", "    label_sigma_bins: 2.0"] if large else []
    )
    if facts.start is None:
        return ["    backbone: small".ljust(40) + "# no public weights were found that fit", "    freeze: early", *size, *grid]
    return [
        "    backbone: folded",
        f"    weights: {facts.start.weights}",
        f"    feature_layers: [{', '.join(MOVENET_LAYERS)}]",
        "    head: marginal",
        *(["    head_start: heatmap", "    marginal_sharpness: 4.0"] if facts.start.has_heat_maps else []),
        "    freeze: backbone".ljust(40) + "# the head alone trains: features are computed once",
        *size,
        *grid,
    ]


def _public_stage(facts: DataFacts) -> str:
    batch = max(1, min(32, facts.public_rows))
    if facts.start is None:
        light = "augmentation: {flip_prob: 0.5, photometric_frac: 0.7}"
        return f"{{steps: 800, batch_size: {batch}, learning_rate: 6.0e-3, {light}}}"
    steps = 0 if facts.start.has_heat_maps else 200
    return f"{{steps: {steps}, batch_size: {batch}, learning_rate: 1.0e-3, freeze: backbone}}"


def _search(facts: DataFacts) -> Sequence[str]:
    examples = min(256, facts.public_rows)
    low = max(1, min(32, examples // 4))
    ranks = ", ".join(map(str, dict.fromkeys((low, round((low * examples) ** 0.5), examples))))
    heat = facts.start is not None
    clip, rate = ("[0.5, 4.0]", "[3.0e-4, 4.0e-3]") if heat else ("[0.1, 1.0]", "[1.0e-3, 8.0e-3]")
    views = "when: {method: [feature, feature_projected]}"
    return (
        "search:".ljust(42) + "# a dotted setting: choice, int or float",
        "  method: {choice: [dpsgd, projected, feature, feature_projected]}",
        f"  split: {{choice: [{_split_name(facts)}], {views}}}",
        f"  clip_norm: {{float: {clip}, log: true}}",
        f"  optimizer.learning_rate: {{float: {rate}, log: true}}",
        f"  subspace.rank: {{choice: [{ranks}, full], when: {{method: [projected, feature_projected]}}}}".ljust(40)
        + "  # full: no projection",
        f"  public_weight: {{choice: [0.0, 0.25, 0.5, 0.75, 1.0], {views}}}".ljust(40) + "  # 0: the hybrid is projected DP-SGD",
        f"  public_batch_size: {{choice: [{max(1, min(64, facts.private_units))}], {views}}}",
    )
