"""Advice before spending: what each method can gain at each ε, and what follows from it. Torch-free.

| word | means |
|---|---|
| free | the share that a step on public views gains alone, which costs no privacy |
| kept | the share that a step of the method gains, at its best λ, k and C in the space |
| pays | it keeps more than what is free, by `LEAST_SHARE` of what is left, and more than its own parts |

Advice is kept in the cache, `advice/<key>.json`, so that a plan of the same space shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dpcore.config import METHODS, Method, Places, digest_of
from dpcore.durable import read_json, write_json
from search_spaces.space import value_at

if TYPE_CHECKING:
    from search_spaces.space import SpaceFile

ADVICE_VERSION = 1
"""Raised when the same space and people would be advised otherwise."""
LEAST_SHARE = 0.2
"""Of what is not free. On LSPET DP-SGD is predicted to keep 54 % at ε 0.2 and 91 % at 0.8; it gained 1.2 and 2.3 points of PCKh, of 3.7."""
LEAST_DIFFERENCE = 0.05
"""Of the gain without privacy, and two standard errors: methods that keep so nearly the same are equal, and the simpler one is named."""
BEST, PAYS, NO_BETTER, TOO_NOISY, FREE = VERDICTS = ("best", "pays", "no better", "too noisy", "free is enough")


@dataclass(frozen=True, kw_only=True)
class AdviceAt:
    """One method at one ε, at its best λ, k and C.

    Attributes:
        kept: share of the gain without privacy that a step keeps, at the learning rate that is best for it. stderr: its standard error.
        public_weight, rank, clip_norm: at which; None where the method has none, or rank in the full space.
        noise_stddev: ασC/B, per coordinate and step. noise_to_signal: norm of that noise over the part of a step along the mean gradient;
            None where so few people do not show it.
        needed: the N at which it would keep half of what is not free; None where no N does, and where all is free.
        verdict: one of `VERDICTS`.
        than: of `no better`, the part of it that does as well.
    """

    epsilon: float
    method: str
    kept: float
    stderr: float
    public_weight: float | None
    rank: int | None
    clip_norm: float
    noise_stddev: float
    noise_to_signal: float | None
    needed: int | None
    verdict: str = ""
    than: str | None = None

    @property
    def pays(self) -> bool:
        """Whether it is worth its ε."""
        return self.verdict in (BEST, PAYS)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What was measured at one start, under one split, with one part of the network trained.

    Attributes:
        split: None where no method reads views. start: `public` or `public_view`. strategy: `model.freeze`, where it is searched.
        people, basis_people, parameters: how many were measured, how many the subspace was fitted to, and P.
        residual_ratio: ρ, at the λ of the space that is best for it; public_weight: that λ. None without views.
        cosine: mean over people of the cosine of their plain gradient and that of their view.
        median_norm: of plain gradients. C is measured against it.
        free: share of the gain without privacy that a step on the views has alone; 0 without views.
        kept_by_rank: what subspaces keep of signal and Fisher trace.
        methods: for each ε and method.
    """

    split: str | None
    start: str
    strategy: str | None
    people: int
    basis_people: int
    parameters: int
    residual_ratio: float | None
    public_weight: float | None
    cosine: float | None
    median_norm: float
    free: float
    kept_by_rank: tuple[tuple[int, float | None, float], ...]
    methods: tuple[AdviceAt, ...]

    def at(self, epsilon: float) -> tuple[AdviceAt, ...]:
        """The methods at an ε, the simpler ones first."""
        return tuple(one for one in self.methods if one.epsilon == epsilon)

    def advised(self, epsilon: float) -> AdviceAt:
        """What to take at an ε: the best one that pays; else one whose views alone are enough; else the one that keeps the most."""
        here = self.at(epsilon)
        free = [one for one in here if one.verdict == FREE and METHODS.get(one.method).uses_views]
        return next((one for one in here if one.verdict == BEST), free[0] if free else max(here, key=lambda one: one.kept))


@dataclass(frozen=True, kw_only=True)
class SpaceAdvice:
    """Of a whole space.

    Attributes:
        stand_in: the PUBLIC dataset whose people stood for the private ones.
        nominal_examples: N.
        scenes: one for each start, split and part that trains.
        notes: what was not measured, and why.
    """

    stand_in: str
    nominal_examples: int
    scenes: tuple[Scene, ...]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """For JSON."""
        scenes = [
            {
                **asdict(scene),
                "kept_by_rank": [{"rank": rank, "signal": signal, "fisher": fisher} for rank, signal, fisher in scene.kept_by_rank],
                "methods": [{**asdict(one), "pays": one.pays} for one in scene.methods],
            }
            for scene in self.scenes
        ]
        return {
            "stand_in": self.stand_in,
            "nominal_examples": self.nominal_examples,
            "scenes": scenes,
            "notes": list(self.notes),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`."""
        scenes = [
            Scene(
                **{name: value for name, value in scene.items() if name not in ("kept_by_rank", "methods")},
                kept_by_rank=tuple((one["rank"], one["signal"], one["fisher"]) for one in scene["kept_by_rank"]),
                methods=tuple(AdviceAt(**{name: value for name, value in one.items() if name != "pays"}) for one in scene["methods"]),
            )
            for scene in document["scenes"]
        ]
        return cls(
            stand_in=document["stand_in"],
            nominal_examples=document["nominal_examples"],
            scenes=tuple(scenes),
            notes=tuple(document["notes"]),
        )


def stand_in_of(space: SpaceFile) -> str:
    """The PUBLIC people who are most like the private ones: the proxy, else validation people who are declared PUBLIC, else the PUBLIC
    dataset. From the last, the shift from PUBLIC to PRIVATE people cannot be seen."""
    proxy = value_at(space.trial, "data.proxy")
    if proxy is not None:
        return str(proxy)
    place = "data.validation" if space.sweep.validation == "public" else "data.public"
    return str(value_at(space.trial, place))


def judged(found: Sequence[AdviceAt | None], *, free: float) -> Iterator[AdviceAt]:
    """What is measured with its verdicts, ε by ε.

    Args:
        found: each method at each ε, the simpler methods first.
        free: the share that costs nothing.
    """
    known = [one for one in found if one is not None]
    for epsilon in dict.fromkeys(one.epsilon for one in known):
        here = {one.method: one for one in known if one.epsilon == epsilon}
        verdicts = {name: _verdict(one, here, free) for name, one in here.items()}
        paying = [here[name] for name, (verdict, _) in verdicts.items() if verdict == PAYS]
        highest = max(paying, key=lambda one: one.kept, default=None)
        # the simplest of those that are as good
        best = next((one.method for one in paying if highest is not None and _are_near(one, highest)), None)
        for name, one in here.items():
            verdict, than = verdicts[name]
            yield replace(one, verdict=BEST if name == best else verdict, than=than)


def _verdict(one: AdviceAt, here: Mapping[str, AdviceAt], free: float) -> tuple[str, str | None]:
    """`pays`, or why not; and what does as well."""
    if free >= LEAST_SHARE and one.kept <= free + max(LEAST_DIFFERENCE, 2 * one.stderr):
        return FREE, None
    if one.kept - free < LEAST_SHARE * (1 - free):
        return TOO_NOISY, None
    own = METHODS.get(one.method)
    parts = [here[name] for name in here if name != one.method and _is_part(METHODS.get(name), own)]
    as_good = max((part for part in parts if _are_near(part, one)), key=lambda part: part.kept, default=None)
    return (NO_BETTER, as_good.method) if as_good is not None else (PAYS, None)


def _are_near(one: AdviceAt, other: AdviceAt) -> bool:
    """Whether `one` keeps as much as `other`, as far as so many people tell."""
    return one.kept >= other.kept - max(LEAST_DIFFERENCE, 2 * math.hypot(one.stderr, other.stderr))


def _is_part(part: Method, whole: Method) -> bool:
    """Whether a method is the other one without its views or without its projection."""
    return part.uses_views <= whole.uses_views and part.projects <= whole.projects


def keep(advice: SpaceAdvice, space: SpaceFile, *, places: Places, seed: int) -> None:
    """Writes advice where `kept` finds it."""
    path = _place(space, advice.stand_in, places, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, advice.document())


def kept(space: SpaceFile, *, places: Places, seed: int) -> SpaceAdvice | None:
    """The advice on a space with its usual stand-in, from the cache; None where nobody asked for it yet."""
    path = _place(space, stand_in_of(space), places, seed)
    return SpaceAdvice.of(read_json(path)) if path.is_file() else None


def _place(space: SpaceFile, stand_in: str, places: Places, seed: int) -> Path:
    """Named by all that advice follows from. Datasets and weights are looked at from outside: none is opened."""
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.manifest import MANIFEST_NAME

    names = {stand_in, str(value_at(space.trial, "data.public"))}
    files = [dataset_folder(name, places) / MANIFEST_NAME for name in sorted(names)]
    weights = value_at(space.trial, "model.weights")
    files += [] if weights is None else sorted((places.data_dir / str(weights)).parent.glob(f"{Path(str(weights)).name}*"))
    seen = {str(file): (stat.st_size, stat.st_mtime_ns) for file in files if file.is_file() and (stat := file.stat())}
    document = {"version": ADVICE_VERSION, "space": space.document(), "seed": seed, "on": stand_in, "files": seen}
    return places.cache_dir / "advice" / f"{digest_of(document)}.json"
