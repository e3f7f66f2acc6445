"""A sweep from its plan to its end: plan, run, resume, status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from search_spaces.space import SpaceFile
from sweeps.api.results import Results, detailed_report
from sweeps.api.specs import SweepOptions, spec_of
from sweeps.records.publication import load_spec, require_state
from sweeps.records.spec import DEFAULT_STORAGE, SweepSpec
from sweeps.terminal.lines import warn

if TYPE_CHECKING:
    from sweeps.pricing.advice.found import SpaceAdvice
    from sweeps.pricing.duration import Duration
    from sweeps.pricing.plan import SweepPlan
    from sweeps.records.results import SweepResults
    from sweeps.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a sweep would run, and what it would cost. Printed, it is what `dpsweep run --dry-run` shows.

    Attributes:
        spec: the sweep; `run` takes it.
        plan: its groups (one per ε, with noise multiplier, q and steps) and its price under each regime.
        duration: as it was timed; None: nothing was timed, and what an earlier sweep took is said.
    """

    spec: SweepSpec
    plan: SweepPlan
    duration: Duration | None = None

    @property
    def sweep_epsilon(self) -> float | None:
        """The price of the whole sweep under its own regime; None under `unaccounted`."""
        return self.plan.sweep_epsilon

    def __str__(self) -> str:
        from sweeps.report.plan_text import plan_text

        return plan_text(self.spec, self.plan, self.duration)

    def document(self) -> dict[str, Any]:
        """What `dpsweep run --dry-run --json` prints."""
        from sweeps.report.plan_text import plan_document

        return plan_document(self.spec, self.plan, self.duration)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def plan(space: str | Path | SpaceFile | SweepSpec, *, time: bool = False, **options: Unpack[SweepOptions]) -> Plan:
    """Plans a sweep: nothing is started, nothing is charged, nothing is written but caches.

    Args:
        space: a preset's name, the path of a space file, a loaded space, or a spec.
        time: whether to time some steps of each method here, on PUBLIC people, for an estimate of the wall time. It takes seconds.
        **options: see `SweepOptions`.

    Raises:
        BadInput: a mistake in the space or an option, or a dataset is missing.
        Refused: the price would pass `epsilon_total`, or the name is taken: what `run` would refuse too.

    >>> planned = plan("quick", epsilons=[0.8], trials=2, storage="never_made")
    >>> print(planned)  # doctest: +ELLIPSIS
    plan of quick: ...
    >>> planned.sweep_epsilon > 0.8
    True
    """
    from sweeps.engine.preflight import plan_of

    spec = spec_of(space, options)
    planned = plan_of(spec)
    if not time:
        return Plan(spec=spec, plan=planned)
    from sweeps.models.timing import timed_duration

    return Plan(spec=spec, plan=planned, duration=timed_duration(spec, planned))


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What can pay, from PUBLIC data alone. Printed, it is what `dpsweep advise` shows.

    Attributes:
        spec: the sweep that it is about.
        found: by start, split and part that trains: ρ, what subspaces keep, and every method at every ε.
    """

    spec: SweepSpec
    found: SpaceAdvice

    def __str__(self) -> str:
        from sweeps.report.overview.advice_text import advice_text

        return advice_text(self.found)

    def document(self) -> dict[str, Any]:
        """What `dpsweep advise --json` prints."""
        return self.found.document()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def advise(
    space: str | Path | SpaceFile | SweepSpec,
    *,
    on: str | None = None,
    on_scene: Callable[[str], None] = lambda what: None,
    on_progress: Callable[[int, int], None] = lambda done, count: None,
    **options: Unpack[SweepOptions],
) -> Advice:
    """Predicts which methods can pay at which ε. Nothing private is opened, nothing is charged; public stages are trained where the cache
    has none, and kept for `run`.

    Args:
        space: a preset's name, the path of a space file, a loaded space, or a spec.
        on: a PUBLIC dataset whose people stand for the private ones; None: the proxy, else validation people who are declared PUBLIC, else
            the PUBLIC dataset.
        on_scene: hears what is measured next. on_progress: how many gradients of how many are there.
        **options: see `SweepOptions`.

    Raises:
        BadInput: a mistake in the space or an option, a PUBLIC dataset is missing or has too few people, or it is not PUBLIC.
    """
    from sweeps.pricing.advice.found import keep
    from sweeps.pricing.advice.predicting import advise_on
    from sweeps.pricing.plan import dp_accountant

    spec = spec_of(space, options)
    found = advise_on(
        spec.space,
        dp_accountant(spec.places.cache_dir),
        seed=spec.seed,
        places=spec.places,
        runtime=spec.runtime,
        stand_in=on,
        on_scene=on_scene,
        on_progress=on_progress,
    )
    keep(found, spec.space, places=spec.places, seed=spec.seed)
    return Advice(spec=spec, found=found)


def run(space: str | Path | SpaceFile | SweepSpec, **options: Unpack[SweepOptions]) -> Results:
    """Runs a new sweep to its end and writes its report; a line per trial goes to stderr.

    Args:
        space: a preset's name, the path of a space file, a loaded space, or a spec.
        **options: see `SweepOptions`.

    Returns:
        The priced results. Where `stopped_by` is set, the sweep ended before its plan.

    Raises:
        BadInput, Refused, Unavailable: nothing was begun, nothing is charged.
        DpsweepError: Ctrl-C or a full disk ended it; `resume` goes on. What was reserved stays charged.
    """
    from sweeps.engine.driver import run_sweep
    from sweeps.tracking.mlflow_connection import unused_address

    spec = spec_of(space, options)
    if (unused := unused_address(spec.tracking_uri, used=spec.resolved_tracking_uri)) is not None:
        warn(f"dpsweep: {unused}")
    if spec.tracking_uri is not None:
        from sweeps.tracking.tracker import check_tracking

        check_tracking(spec.tracking_uri)
    return Results(found=run_sweep(spec, summarize=partial(summarize, spec)), spec=spec)


def resume(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None, new_attempt: bool = False) -> Results:
    """Goes on with a sweep that was interrupted, however it ended; nothing is doubled. A finished one writes its results again.

    Args:
        name: of the sweep.
        storage: folder of the sweeps, or a bucket's URI.
        state: folder of study, key and spool; None: where the sweep began.
        new_attempt: runs that other packages (torch, numpy, ...) cannot repeat go on with fresh noise, charged again.

    Raises:
        BadInput: there is no such sweep. Refused: another process runs it, or open runs cannot be repeated with the packages here.
        Unavailable: its state is not on this machine.
    """
    from sweeps.engine.driver import resume_sweep

    spec = existing_spec(name, storage, state)
    moved = None if state is None else Path(state)
    return Results(found=resume_sweep(name, storage, state=moved, new_attempt=new_attempt, summarize=partial(summarize, spec)), spec=spec)


def status(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> dict[str, Any]:
    """Where a sweep stands, whether its driver lives or not: what `dpsweep status --json` prints.

    Args:
        name, storage, state: as for `resume`.

    Returns:
        state, next (what to run now), epsilons (a list of counts), sweep_epsilon, sweep_epsilon_planned, seconds_left: see
        `sweeps.report.status`.

    Raises:
        BadInput: there is no such sweep. Unavailable: its state is not on this machine.
    """
    from sweeps.report.status import sweep_status

    return sweep_status(existing_spec(name, storage, state))


def cancel(name: str, trial: str | None = None, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> str:
    """Ends a sweep that runs, as Ctrl-C would, or one of its trials. A driver on this machine that does not react is killed.

    A trial that is cancelled has failed, is not tried again, and stays charged what it reserved.

    Args:
        name, storage, state: as for `resume`.
        trial: id of a running trial; None: the whole sweep.

    Returns:
        What became of it, in a sentence.

    Raises:
        BadInput: there is no such sweep, or no such trial runs. Refused: no driver runs the sweep.
        Unavailable: the driver does not react, and runs on another machine.
    """
    from sweeps.remote.cancelling import cancel_sweep, cancel_trial

    spec = existing_spec(name, storage, state)
    return cancel_sweep(spec) if trial is None else cancel_trial(spec, trial)


def existing_spec(
    name: str, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None, *, with_state: bool = True
) -> SweepSpec:
    """The spec of a sweep that exists; `with_state`: its study and ledger must be seen from this machine.

    Raises:
        BadInput: there is no such sweep. Unavailable: its state is not on this machine.
    """
    return require_state(load_spec(name, storage, None if state is None else Path(state)))


def summarize(spec: SweepSpec, results: SweepResults, tracker: Tracker) -> None:
    """Writes the report with its page, curves and contact sheets and gives them to the tracker, while that is open."""
    from sweeps.report.contact_sheet import save_contact_sheets
    from sweeps.report.curves import save_epsilon_curves
    from sweeps.report.page.files import PAGE, write_report
    from sweeps.report.page.pictures import draw_pictures
    from sweeps.tracking.browsing import SweepSummary

    report = detailed_report(results, spec)
    folder = spec.sweep_dir / "report"
    pictures = draw_pictures(report.comparisons, spec)
    figures = (*write_report(report, folder, results=results, pictures=pictures), *save_epsilon_curves(results, folder))
    sheets = save_contact_sheets(results, spec, shown=folder, sealed=spec.state_dir / "sealed")
    for sheet in sheets:
        if sheet.reason is not None:
            warn(f"dpsweep: ε = {sheet.epsilon:g}: {sheet.reason}")
    tracker.summary(
        SweepSummary(
            results=results,
            text=report.markdown(),
            comparisons=report.comparisons,
            verdicts=report.verdicts(),
            price=report.price.lines(),
            pages=(folder / PAGE,),
            figures=figures,
            sheets=sheets,
        )
    )
    if tracker.runs_url is not None:
        warn(f"dpsweep: MLflow: {tracker.runs_url}")
