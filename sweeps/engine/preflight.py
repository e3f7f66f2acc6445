"""What must hold before a sweep begins: its data, its price, its name and its key. Nothing is written but caches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import Places, TrialConfig
from dpcore.errors import BadInput, Refused
from search_spaces.space import Choice
from sweeps.ledger.charges import FilterTerms
from sweeps.ledger.database import file_of, shown
from sweeps.ledger.ledger import Ledger
from sweeps.ledger.totals import published_regions
from sweeps.pricing.one_budget import compared, require_within
from sweeps.pricing.plan import Accountant, SweepPlan, check_cap, dp_accountant, plan_sweep, price_at
from sweeps.pricing.validation import check_noise
from sweeps.ray_runtime.disclosing import Disclosing, disclosing_of
from sweeps.records.charged import beside, standing_ledger
from sweeps.records.cohort_ledger import charged_url
from sweeps.records.publication import is_published
from sweeps.records.spec import SPEC_FILE, SweepSpec
from sweeps.report.live.screen import Screen, SweepLook, live_screen, no_screen
from sweeps.search.storage import check_new_studies
from sweeps.search.terms import SweepTerms, terms_of
from sweeps.terminal.lines import warn
from sweeps.terminal.noise import library_noise
from sweeps.terminal.working import working

if TYPE_CHECKING:
    from dpcore.data.shards import ShardSet
    from dpcore.pose.skeleton import Skeleton
    from sweeps.engine.searcher import SweepTracker

AMOUNTS = ("stages.public.batch_size", "stages.public_view.batch_size", "teacher.batch_size", "subspace.examples", "public_batch_size")
"""Settings that ask for so many examples of a dataset."""

DRAWS_CHECKED = 64
"""At each ε: enough to meet every method."""


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """What a sweep must know of its private dataset: whom to charge, and whether they are people to protect; and whom to charge for scores
    where validation is private. `ledger_url`: which their dataset names. `notes`: what a person should look at, for their
    terminal alone."""

    cohort: str
    protected: bool
    validation_cohort: str | None = None
    ledger_url: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a sweep leans on; tests and simulations give others.

    Attributes:
        accountant: plans and composes. tracker: one for the sweep.
        dataset: checks the datasets of a config and describes the private one.
        say: takes a progress line.
        disclosure: attacks the public views of the sweep's splits, beside the trials; None where it has none to attack.
        working: says that something goes on, for the length of a block. screen: shows the sweep while it runs. quiet: leads what
            libraries say into a file.
    """

    accountant: Accountant
    tracker: Callable[[SweepSpec], SweepTracker]
    dataset: Callable[[SweepSpec], DatasetFacts]
    say: Callable[[str], None]
    disclosure: Callable[[SweepSpec, Callable[[str], None]], Disclosing | None] = lambda spec, say: None
    working: Callable[[str], AbstractContextManager[None]] = lambda what: nullcontext()
    screen: Callable[[SweepLook], AbstractContextManager[Screen]] = no_screen
    quiet: Callable[[Path], AbstractContextManager[None]] = lambda path: nullcontext()


def default_surroundings(cache_dir: Path | None = None) -> Surroundings:
    """dp-accounting, whose compositions are remembered in `cache_dir`, MLflow, the data catalog, stderr."""

    def tracker(spec: SweepSpec) -> SweepTracker:
        from sweeps.tracking.tracker import Tracker

        return Tracker(spec)

    return Surroundings(
        accountant=dp_accountant(cache_dir),
        tracker=tracker,
        dataset=describe_dataset,
        say=warn,
        disclosure=disclosing_of,
        working=working,
        screen=live_screen,
        quiet=library_noise,
    )


def describe_dataset(spec: SweepSpec) -> DatasetFacts:
    """Opens and verifies the datasets of a sweep.

    Raises:
        BadInput: one is missing or of another crop size than the model takes, no score can be computed on the validation data, or
            a setting asks for more examples than a dataset has.
        Corrupt: one does not verify.
        Refused: roles or overlaps are wrong, the units of privacy cannot be told apart, or labels that are to stay private placed
            the crops.
    """
    from dpcore.data.catalog import check_crops, check_roles, check_scorable, check_sizes, check_unit, open_dataset, shown_to
    from dpcore.data.cohorts import check_cohort
    from dpcore.data.shards import members_beside
    from dpcore.data.validation_parts import rows_of

    places: Places = spec.places
    config = any_config(spec)
    data = config.data
    private = open_dataset(data.in_private_place, places)
    public, validation = (open_dataset(name, places).as_skeleton(private.skeleton) for name in (data.public, data.validation))
    validated = spec.space.sweep.validation == "private"
    check_roles(private, public, validation, private_validation=validated, rehearsal=config.is_rehearsal)
    check_sizes(config, [shown_to(config.model, one) for one in (private, public, validation)])
    if data.canonical_rotation is not None:
        from dpcore.inference.upright import UprightDetector

        UprightDetector.of(data, places)  # whether its weights are there
    check_scorable(validation, spec.metric)
    for people in filter(None, (spec.space.sweep.search_people, spec.space.sweep.verdict_people)):
        rows_of(validation, people)
    _check_amounts(spec, private, public)
    if config.labels == "private" and spec.space.splits_in_use:
        check_crops(private)
    if config.is_rehearsal:
        return DatasetFacts(cohort=private.members.cohort, protected=False)
    charged = (private, validation) if validated else (private,)
    for dataset in charged:
        check_cohort(dataset.members, members_beside(dataset.folder), place=dataset.folder.parent)
    _check_views(spec, private)
    if spec.space.private_methods:
        check_unit(private, config.privacy_unit)
    if validated:
        check_unit(validation, config.privacy_unit)
    urls = {one.manifest.name: url for one in charged if (url := charged_url(one)) is not None}
    if len(set(urls.values())) > 1:
        raise Refused(f"the people of this sweep are charged to different ledgers ({urls}), and one sweep has one: bind them to the same")
    return DatasetFacts(
        ledger_url=next(iter(urls.values()), None),
        cohort=private.members.cohort,
        protected=private.manifest.protected or validation.manifest.protected,
        validation_cohort=validation.members.cohort if validated else None,
        notes=_networks(spec, private.skeleton)
        + _look_alikes({data.public: public, data.validation: validation}, {data.private: private}, places),
    )


def _check_amounts(spec: SweepSpec, private: ShardSet, public: ShardSet) -> None:
    """Holds what the draws of the space ask for against what is there: at random, and with each amount at its largest.

    Raises:
        BadInput: a draw asks for more examples than a dataset has.
    """
    import random

    from dpcore.data.catalog import check_amounts
    from search_spaces.admission import is_admissible

    generator = random.Random(0)
    for epsilon in spec.space.sweep.epsilons:
        searched = spec.space.parameters_at(epsilon)
        values = {path: one.choice if isinstance(one, Choice) else one.bounds for path in AMOUNTS if (one := searched.get(path))}
        most = {path: max(value for value in given if isinstance(value, int)) for path, given in values.items()}
        for _ in range(DRAWS_CHECKED):
            draw = spec.space.draw(epsilon, generator, forced=most)
            if is_admissible(spec.space, epsilon, draw):
                check_amounts(spec.space.trial_config(epsilon, draw), private=private, public=public)


def _networks(spec: SweepSpec, skeleton: Skeleton) -> tuple[str, ...]:
    """Builds each network from elsewhere that the space admits, and says what was made of it. Here a wrong name costs no budget.

    Raises:
        BadInput: it can't be made, its weights do not fit, or nothing of it trains as `model.freeze` says. Refused: it can't be made safe.
    """
    import random

    from dpcore.config.networks import backbone_traits
    from search_spaces.admission import is_admissible

    generator, models = random.Random(0), {}
    for epsilon in spec.space.sweep.epsilons:
        for _ in range(DRAWS_CHECKED):
            draw = spec.space.draw(epsilon, generator)
            if is_admissible(spec.space, epsilon, draw):
                model = spec.space.trial_config(epsilon, draw).model
                if backbone_traits(model.backbone).is_foreign:
                    models[model.model_dump_json()] = model
    if not models:
        return ()
    from dpcore.model.network import described

    return tuple(dict.fromkeys(line for model in models.values() for line in described(model, spec.places, skeleton=skeleton)))


def _check_views(spec: SweepSpec, private: ShardSet) -> None:
    """Views stay out, whatever became of a cache: those that the ledger holds join with those of this sweep.

    Raises:
        Refused: together they show records whole.
    """
    from dpcore.data.views import check_join

    url = private.manifest.ledger
    ledger = standing_ledger(spec if url is None else spec.model_copy(update={"ledger_url": url}))
    out = set() if ledger is None else published_regions(ledger.lines(cohort=private.members.cohort))
    if ledger is not None:
        ledger.close()
    check_join(private, {split.region for split in spec.space.splits_in_use} | out)


def _look_alikes(public: Mapping[str, ShardSet], private: Mapping[str, ShardSet], places: Places) -> tuple[str, ...]:
    """A line for each PUBLIC dataset whose pictures look like private ones. The datasets are given by the names that the space has."""
    from dpcore.data.likeness import likeness_of

    found = [
        likeness_of(one, other, places, names=(name, secret))
        for name, one in public.items()
        if one.manifest.role == "PUBLIC"
        for secret, other in private.items()
    ]
    return tuple(likeness.text for likeness in found if likeness is not None)


def describe_for_plan(spec: SweepSpec) -> DatasetFacts:
    """`describe_dataset`, but embedded data that nobody has used yet are not generated for a plan: what they are is known, and
    without a ledger nothing stands against them. A plan whose private dataset is not on this machine is made all the same: its price
    follows from the space. A note says what it could not check."""
    from dpcore.data.catalog import dataset_folder
    from dpcore.data.synthetic import EMBEDDED

    data = any_config(spec).data
    names = (data.in_private_place, data.public, data.validation)
    is_unused = all(name in EMBEDDED and not dataset_folder(name, spec.places).exists() for name in names)
    is_public = spec.space.sweep.validation == "public"
    if is_unused and is_public and not _ledger_is_there(spec):
        return DatasetFacts(cohort="", protected=False)
    missing = [name for name in dict.fromkeys(names) if name not in EMBEDDED and not dataset_folder(name, spec.places).exists()]
    if data.in_private_place not in missing or not is_public:
        return describe_dataset(spec)
    note = (
        f"plan without its data: {', '.join(missing)} not in {spec.places.data_dir} (`dpsweep data import` makes them). Not checked: "
        "roles, sizes, whether the people are protected, and what they were charged before"
    )
    return DatasetFacts(cohort="", protected=False, notes=(note,))


def any_config(spec: SweepSpec) -> TrialConfig:
    """Some admissible config of the space: its data are those of all."""
    import random

    generator = random.Random(0)
    space, epsilon = spec.space, spec.space.sweep.epsilons[0]
    refusal: BadInput | None = None
    for _ in range(200):
        try:
            return space.trial_config(epsilon, space.draw(epsilon, generator))
        except BadInput as error:
            refusal = error
    raise BadInput(f"no draw of the space is admissible: {refusal}")


@dataclass(frozen=True, kw_only=True)
class CheckedSweep:
    """A sweep that may begin: its price, its data, and what follows from its spec."""

    plan: SweepPlan
    facts: DatasetFacts
    terms: SweepTerms


def checked_plan(spec: SweepSpec, around: Surroundings) -> CheckedSweep:
    """Checks all that can be known before a sweep begins.

    Raises:
        BadInput: a dataset, the space or a stopper does not fit, or a folder cannot be written. Refused: the name, the key, the price
            or the noise of scores.
    """
    check_writable(spec)
    if (spec.sweep_dir / SPEC_FILE).exists() or is_published(spec):
        raise Refused(f"sweep {spec.name} exists in {spec.storage}; go on with `dpsweep resume {spec.name}`, or give another --name")
    facts = around.dataset(spec)
    for line in facts.notes:
        around.say(f"dpsweep: {line}")
    if facts.protected and spec.space.references.ceiling not in (False, "non_private"):
        raise Refused(
            "references.ceiling trains without privacy, and the private data are protected; set references.ceiling=false, or =non_private: "
            "then it runs, the ledger says so, and its score is sealed"
        )
    if facts.protected and spec.space.unbounded_methods:
        named = ", ".join(spec.space.unbounded_methods)
        raise Refused(f"method {named} trains without privacy, and the private data are protected; take it out of the space")
    check_new_studies(spec, protected=facts.protected)
    spec = charged_to(spec, facts)
    ledger = standing_ledger(spec)
    standing = () if ledger is None else ledger.lines(cohort=facts.cohort)
    plan = plan_sweep(spec.space, around.accountant, standing=standing, cache_dir=spec.places.cache_dir)
    _check_name_and_key_are_fresh(spec, ledger)
    if spec.space.sweep.total_epsilon is not None:
        require_within(spec.space, price_at(spec.space, around.accountant, spec.places.cache_dir))
    check_cap(plan, standing, around.accountant, unit=any_config(spec).privacy_unit)
    terms = terms_of(spec)
    if terms.validation is not None:
        check_noise(terms.validation)
    return CheckedSweep(plan=plan, facts=facts, terms=terms)


def plan_of(spec: SweepSpec, surroundings: Surroundings | None = None) -> SweepPlan:
    """What `--dry-run` shows, refused like the run itself; nothing is written but caches, and nothing that runs trials is imported.

    Raises:
        BadInput: a dataset is missing or does not fit. Refused: over `epsilon_total`, or a name that exists.
    """
    around = surroundings or replace(default_surroundings(spec.places.cache_dir), dataset=describe_for_plan)
    plan = checked_plan(spec, around).plan
    return replace(plan, splits=compared(spec.space, around.accountant, spec.places.cache_dir))


def check_writable(spec: SweepSpec) -> None:
    """Whether this user may write where the sweep is to lie, and into the files that the sweeps of a storage share.

    Raises:
        BadInput: a folder or file may not be written.
    """
    folders = (("--storage", spec.storage_dir), ("--state", spec.state_dir.parent), ("--cache-dir", spec.places.cache_dir))
    for option, folder in folders:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not _may_write(there, os.W_OK | os.X_OK):
            raise BadInput(f"{option} {folder}: {there} cannot be written by this user; give another folder, or make it writable")
    ledger = file_of(spec.resolved_ledger_url)
    shared = [*([] if ledger is None else [ledger, beside(ledger)]), *([] if spec.tracking_uri else [spec.default_store])]
    for file in shared:
        if file.exists() and not _may_write(file, os.W_OK):
            raise BadInput(
                f"{file} belongs to user {file.stat().st_uid} and cannot be written by this user; let its group write it, or give a "
                "--storage of your own: a ledger on a server (--ledger URL) is the one that several users share"
            )


def _may_write(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def charged_to(spec: SweepSpec, facts: DatasetFacts, *, resumed: bool = False) -> SweepSpec:
    """The spec with the ledger that the dataset of its people names, whatever its storage; that of a resumed sweep may have moved.

    Raises:
        Refused: `--ledger` names another one.
    """
    if facts.ledger_url is None or facts.ledger_url == spec.ledger_url:
        return spec
    if spec.ledger_url is not None and not resumed:
        raise Refused(
            f"--ledger {shown(spec.ledger_url)}: the people of this sweep are charged to {shown(facts.ledger_url)}, which their dataset "
            "names; leave --ledger out"
        )
    return spec.model_copy(update={"ledger_url": facts.ledger_url})


def with_filter(spec: SweepSpec, plan: SweepPlan) -> SweepSpec:
    """The spec with the order and budget of its RDP filter, if it needs one: fixed here, before the first trial."""
    if plan.basis.filter is None:
        return spec
    terms = FilterTerms(sweep=spec.name, order=plan.basis.filter.order, rdp=plan.basis.filter.rdp)
    return spec.model_copy(update={"privacy_filter": terms})


def _check_name_and_key_are_fresh(spec: SweepSpec, ledger: Ledger | None) -> None:
    """Lines are known by sweep and trial: a second sweep of one name would pass for a replay of the first. And trial ids
    are alike in all sweeps: under one key, a trial with the settings of another one's would draw its noise again.

    Raises:
        Refused: the ledger knows the name, or the key that DPSWEEP_KEY_FILE names.
    """
    lines = () if ledger is None else ledger.lines()
    if any(line.sweep == spec.name for line in lines):
        raise Refused(
            f"the ledger holds reservations of a sweep {spec.name} already, whose folder is not in {spec.storage}; give another --name, "
            "so that this sweep is charged for itself"
        )
    if spec.key_path.exists() and spec.key_path.parent != spec.state_dir:
        from dpcore.privacy.randomness import SweepKey

        key_id = SweepKey.load(spec.key_path).key_id()
        if any(line.key_id == key_id for line in lines):
            raise Refused(f"{spec.key_path} is the key of another sweep; let DPSWEEP_KEY_FILE name a new path, and a key is made there")


def _ledger_is_there(spec: SweepSpec) -> bool:
    return spec.ledger_url is not None or (spec.storage_dir / "ledger.sqlite").is_file()
