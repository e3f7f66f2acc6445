"""A first space for somebody's own data: looks at the datasets, writes a file that fits them, and holds it against the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dpcore.config import Places, PrivacyUnit
from dpcore.config.metrics import METRICS
from dpcore.errors import BadInput, Refused
from search_spaces.fitted import MOVENET_LAYERS, DataFacts, FoldedStart, Wishes, fitted_space
from sweeps.api.sweep import Plan, plan
from sweeps.records.spec import DEFAULT_STORAGE

if TYPE_CHECKING:
    from dpcore.data.manifest import Manifest
    from dpcore.data.shards import ShardSet
    from dpcore.pose.skeleton import Skeleton

FIRST_METRICS = ("pckh_50", "pck_torso_20", "pck_bbox_20", "oks_ap")
"""What a sweep maximises, the first that the validation data can give."""


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What a first sweep tries where nobody says otherwise."""

    epsilons: tuple[float, ...]
    trials: int
    reruns: int


USUAL = {True: Usual(epsilons=(2.0,), trials=8, reruns=1), False: Usual(epsilons=(2.0, 8.0), trials=12, reruns=2)}
"""Whether the people are protected → a first sweep: real people are charged for every trial, so theirs is small, two
trials of each method."""
LEAST_FOLDED_PX = 96
"""MoveNet's coarsest maps have a cell for 32 px: below three of them they say little."""


@dataclass(frozen=True, kw_only=True)
class FoundDataset:
    """A dataset below the data directory, by its manifest alone."""

    name: str
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A new space file.

    Attributes:
        path: where it was written.
        facts: what was found of the data.
        plan: what `dpsweep run FILE --dry-run` shows. Without it nothing would have been written.
    """

    path: Path
    facts: DataFacts
    plan: Plan


def init(
    data: str,
    *,
    out: str | Path,
    public: str | None = None,
    validation: str | None = None,
    proxy: str | None = None,
    nominal_examples: int | None = None,
    epsilons: Sequence[float] | None = None,
    trials: int | None = None,
    labels: Literal["public", "private"] = "public",
    unit: PrivacyUnit = "image",
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    storage: str | Path = DEFAULT_STORAGE,
) -> Begun:
    """Writes a commented space that fits a dataset, and plans it: nothing is started, nothing is charged.

    Args:
        data: the PRIVATE dataset, by its name below the data directory or its folder.
        out: the new YAML file.
        public: a PUBLIC dataset; None: the only one that fits.
        validation: a PUBLIC dataset to score on; None: the only one that fits and whose name says so.
        proxy: a third PUBLIC dataset, on which the whole search runs at no cost (accounting public_proxy).
        nominal_examples: N, which everybody may know; None: the number of units, rounded to two digits.
        epsilons: of the trials; trials: per ε. None: what `USUAL` has for protected people, or for a stand-in.
        labels: private ones need crops that no label placed.
        unit: of privacy.
        data_dir, cache_dir: as for `Places.of`.
        storage: where the sweep is to lie: the plan looks whether its name is free.

    Raises:
        BadInput: a dataset is missing, of another size, or cannot be scored; or several would do, and none was named.
        Refused: `out` exists, or what `run` would refuse.
    """
    target, places = Path(out), Places.of(data_dir, cache_dir)
    if target.exists():
        raise Refused(f"{target} exists and is not overwritten; give another --out")
    if not target.parent.is_dir():
        raise BadInput(f"--out {target}: expected a file in a folder that exists")
    facts, units = look_at(data, places, public=public, validation=validation, proxy=proxy, unit=unit, labels=labels)
    nominal = rounded(units) if nominal_examples is None else nominal_examples
    usual = USUAL[facts.protected]
    wishes = Wishes(
        nominal_examples=nominal,
        epsilons=tuple(epsilons or usual.epsilons),
        trials=trials or usual.trials,
        reruns=usual.reruns,
        labels=labels,
        unit=unit,
    )
    planned = _checked(fitted_space(facts, wishes), target, places, storage)
    return Begun(path=target, facts=facts, plan=planned)


def _checked(text: str, target: Path, places: Places, storage: str | Path) -> Plan:
    """Plans the text as a file of its final name, which stays only where the plan is accepted."""
    from dpcore.durable import replace_file

    replace_file(target, text.encode())
    try:
        return plan(target, data_dir=places.data_dir, cache_dir=places.cache_dir, storage=storage)
    except BaseException:
        target.unlink()
        raise


def rounded(count: int) -> int:
    """A count to two digits, downwards: a number that may be known, close to one that need not be.

    >>> rounded(247), rounded(8500), rounded(12)
    (240, 8500, 12)
    """
    unit: int = 10 ** max(0, len(str(count)) - 2)
    return max(1, count // unit * unit)


def look_at(
    data: str,
    places: Places,
    *,
    public: str | None,
    validation: str | None,
    proxy: str | None,
    unit: PrivacyUnit,
    labels: Literal["public", "private"],
) -> tuple[DataFacts, int]:
    """The facts of a first space, and how many privacy units the private data has."""
    from dpcore.data.catalog import check_crops, check_unit, open_dataset, unit_ids

    private = open_dataset(data, places)
    if private.manifest.role != "PRIVATE":
        raise BadInput(f"{data} is PUBLIC: there is nobody to protect; give the PRIVATE dataset as --data")
    check_unit(private, unit)
    if labels == "private":
        check_crops(private)
    public = public or chosen("public", candidates(private.manifest, places, data), validation)
    validation = validation or chosen("validation", candidates(private.manifest, places, data), public)
    beside = {place: open_dataset(name, places) for place, name in (("public", public), ("validation", validation))}
    rehearsed = None if proxy is None else open_dataset(proxy, places)
    for place, dataset in {**beside, **({} if rehearsed is None else {"proxy": rehearsed})}.items():
        _check_beside(place, dataset, private)
    of_private_place = rehearsed or private
    facts = DataFacts(
        private=data,
        public=public,
        validation=validation,
        proxy=proxy,
        proxy_units=None if rehearsed is None else rounded(len(set(unit_ids(rehearsed, unit).tolist()))),
        height_px=private.manifest.height_px,
        width_px=private.manifest.width_px,
        skeleton=private.skeleton.name,
        joints=private.skeleton.count,
        protected=private.manifest.protected,
        private_rows=len(of_private_place),
        private_units=len(set(unit_ids(of_private_place, unit).tolist())),
        public_rows=len(beside["public"]),
        metric=_metric(beside["validation"].as_skeleton(private.skeleton)),
        start=_start(private, places),
    )
    return facts, len(set(unit_ids(private, unit).tolist()))


def _check_beside(place: str, dataset: ShardSet, private: ShardSet) -> None:
    """Whether a dataset can stand beside the private one.

    Raises:
        BadInput: it is PRIVATE, of another crop size, or shares no joint.
    """
    own, wanted = dataset.manifest, private.manifest
    if own.role != "PUBLIC":
        about = "; a space with validation: private is written by hand (docs/protected-data.md)" if place == "validation" else ""
        raise BadInput(f"--{place} {own.name} is PRIVATE, and a PUBLIC dataset is needed{about}")
    if (own.height_px, own.width_px) != (wanted.height_px, wanted.width_px):
        raise BadInput(
            f"--{place} {own.name} has crops of {own.height_px}x{own.width_px} px, {wanted.name} of {wanted.height_px}x{wanted.width_px}: "
            f"import it again with --height {wanted.height_px} --width {wanted.width_px}"
        )
    dataset.as_skeleton(private.skeleton)


def candidates(private: Manifest, places: Places, data: str) -> tuple[str, ...]:
    """The PUBLIC datasets that could stand beside a private one: of its crop size, with a joint of its skeleton. Embedded ones too
    where nothing else does."""
    from dpcore.data.synthetic import EMBEDDED, SIZE_PX
    from dpcore.pose.skeleton import MPII_16

    found = [
        one.name
        for one in datasets_below(places.data_dir)
        if one.name != data
        and one.manifest.role == "PUBLIC"
        and (one.manifest.height_px, one.manifest.width_px) == (private.height_px, private.width_px)
        and _share_a_joint(one.manifest.skeleton, private.skeleton)
    ]
    fits = (private.height_px, private.width_px) == (SIZE_PX, SIZE_PX) and _share_a_joint(MPII_16, private.skeleton)
    embedded = [name for name, one in EMBEDDED.items() if one.role == "PUBLIC" and not name.endswith("proxy")] if fits else []
    return (*found, *embedded)


def _share_a_joint(source: Skeleton, target: Skeleton) -> bool:
    from dpcore.pose.skeleton import mapping

    return any(mapping(source, target))


def datasets_below(data_dir: Path) -> Iterator[FoundDataset]:
    """Every dataset below the data directory, two folders deep; caches and what does not read are left out."""
    from dpcore.data.manifest import MANIFEST_NAME, load_manifest
    from dpcore.errors import Corrupt

    for pattern in (f"*/{MANIFEST_NAME}", f"*/*/{MANIFEST_NAME}"):
        for path in sorted(data_dir.glob(pattern)):
            name = path.parent.relative_to(data_dir).as_posix()
            if name.startswith("cache/"):
                continue
            try:
                yield FoundDataset(name=name, manifest=load_manifest(path.parent))
            except (BadInput, Corrupt):
                continue  # whatever it is, it is no dataset to propose; `dpsweep data info` says what is wrong


def chosen(place: Literal["public", "validation"], names: Sequence[str], taken: str | None) -> str:
    """The one of several datasets whose name says that it is for a place.

    Raises:
        BadInput: none does, or several do.
    """
    left = [name for name in names if name != taken]
    own = [name for name in left if ("val" in name.rpartition("/")[2]) == (place == "validation")]
    own = [name for name in own if not name.startswith("synthetic/")] or own
    if len(own) == 1:
        return own[0]
    there = f"expected one of {', '.join(left)}" if left else "none with its crop size and joints is there; `dpsweep data import` makes one"
    raise BadInput(f"--{place}: name a PUBLIC dataset; {there}")


def _metric(validation: ShardSet) -> str:
    """The first metric that validation data can give.

    Raises:
        BadInput: they give none. The message says why for the first.
    """
    from dpcore.data.catalog import check_scorable

    refusals: list[str] = []
    for name in FIRST_METRICS:
        try:
            check_scorable(validation, METRICS.get(name).name)
        except BadInput as refusal:
            refusals.append(str(refusal))
            continue
        return name
    raise BadInput(f"{refusals[0]}; no other metric of {', '.join(FIRST_METRICS)} can be computed either")


def _start(private: ShardSet, places: Places) -> FoldedStart | None:
    """MoveNet's weights below the data directory, the larger network first, for crops that are large enough."""
    if min(private.manifest.height_px, private.manifest.width_px) < LEAST_FOLDED_PX:
        return None
    from dpcore.model.head_start import coco_mixtures
    from dpcore.weights.listing import find_weights

    found = [one for one in find_weights(places.data_dir) if one.topology is not None]
    fitting = [one for one in found if one.topology and set(MOVENET_LAYERS) <= {layer.name for layer in one.topology.layers}]
    if not fitting:
        return None
    largest = max(fitting, key=lambda one: one.topology.parameters() if one.topology else 0)
    return FoldedStart(weights=largest.name, has_heat_maps=_succeeds(lambda: coco_mixtures(private.skeleton)))


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except BadInput:
        return False
    return True
