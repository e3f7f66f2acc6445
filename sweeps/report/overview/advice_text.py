"""Advice before spending, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dpcore.config import METHODS
from sweeps.pricing.advice.found import FREE
from sweeps.report.text import number
from sweeps.terminal.tables import render_table

if TYPE_CHECKING:
    from sweeps.pricing.advice.found import AdviceAt, Scene, SpaceAdvice

HEADER = ["ε", "method", "λ", "rank", "C", "noise / signal", "kept %", "verdict", "N for half"]
LEGEND = (
    "kept: share of the gain without privacy that a step keeps, at its best λ, rank and C in the space, with its standard error. "
    "noise / signal: norm of a step's noise over its part along the mean gradient. N for half: how many private examples would keep half "
    "of what is not free, at the same q and steps. It is a prediction for the first steps on a quadratic loss: it orders methods, and "
    "says no PCKh"
)


def advice_text(advice: SpaceAdvice) -> str:
    """What `dpsweep advise` prints."""
    parts = [f"advice from PUBLIC data alone: people of {advice.stand_in} stand for the private ones; N = {advice.nominal_examples:,}"]
    for scene in advice.scenes:
        rows = [row_of(one) for epsilon in _epsilons(scene) for one in scene.at(epsilon)]
        parts += ["\n".join(_scene_lines(scene)), render_table(HEADER, rows), "\n".join(_answers(scene))]
    return "\n\n".join([*parts, "\n".join([LEGEND, *(f"note: {note}" for note in advice.notes)])])


def _epsilons(scene: Scene) -> list[float]:
    return list(dict.fromkeys(one.epsilon for one in scene.methods))


def _scene_lines(scene: Scene) -> Iterator[str]:
    """What was measured."""
    where = f"start {scene.start}" + ("" if scene.strategy is None else f", freeze {scene.strategy}")
    yield (
        f"{where}: {scene.parameters:,} trained parameters, {scene.people} people, median norm of a gradient {number(scene.median_norm)}"
    )
    if scene.split is not None and scene.residual_ratio is not None and scene.public_weight is not None:
        cosine = "" if scene.cosine is None else f", cosine of a gradient and its view's {scene.cosine:.2f}"
        yield f"views {scene.split}: ρ = {scene.residual_ratio:.2f} at λ = {scene.public_weight:g}{cosine}; free: {100 * scene.free:.0f} %"
    kept = [
        f"{rank}: {'–' if signal is None else f'{100 * signal:.0f} %'} / {100 * fisher:.0f} %"
        for rank, signal, fisher in scene.kept_by_rank
    ]
    if kept:
        yield f"signal / noise that the leading directions of the public subspace keep: {', '.join(kept)} (of {scene.basis_people} others)"


def row_of(one: AdviceAt) -> list[str]:
    """The cells of a method at an ε, under `HEADER`."""
    projects = METHODS.get(one.method).projects
    return [
        f"{one.epsilon:g}",
        one.method,
        "" if one.public_weight is None else f"{one.public_weight:.2g}",
        str(one.rank) if one.rank is not None else "full" if projects else "",
        number(one.clip_norm),
        "–" if one.noise_to_signal is None else number(one.noise_to_signal),
        f"{100 * one.kept:.0f} ± {100 * one.stderr:.0f}",
        one.verdict if one.than is None else f"{one.verdict} than {one.than}",
        "–" if one.needed is None else f"{one.needed:,}",
    ]


def _answers(scene: Scene) -> Iterator[str]:
    """One sentence per ε."""
    for epsilon in _epsilons(scene):
        one = scene.advised(epsilon)
        where, share = f"ε = {epsilon:g}:", f"{100 * one.kept:.0f} % of the gain without privacy"
        if one.pays:
            yield f"{where} take {one.method}, which keeps {share}"
        elif one.verdict == FREE:
            given = f"{100 * scene.free:.0f} % of the gain without privacy"
            yield f"{where} take {one.method} with its private part off (private_weight 0, ε = 0): the views alone give {given}"
        else:
            more = "no N in this space would do" if one.needed is None else f"about N = {one.needed:,} would do"
            yield f"{where} nothing pays. {one.method} comes closest with {share}; {more}"
