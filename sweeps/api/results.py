"""What came out of a sweep, for a notebook and for the commands: results, best, report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.errors import Unavailable
from sweeps.pricing.regimes import promise_of
from sweeps.records.export import Price, best_trial, export_trial, write_exported
from sweeps.records.publication import REPORT, load_spec, publish, require_state, results_at_hand
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.results import read_results as read_tables
from sweeps.records.spec import DEFAULT_STORAGE, SPEC_FILE, SweepSpec
from sweeps.report.text import number, percent, render_table

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from sweeps.report.details.answers import EpsilonAnswer
    from sweeps.report.report import SweepReport

HEADER = ("ε", "winner", "method", "{metric} %", "fresh seeds %", "floor %", "trials done")


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of a sweep. In a notebook it shows a table: one row per ε, the price below.

    Attributes:
        found: all records, with the sweep's price.
        spec: the sweep.
    """

    found: SweepResults
    spec: SweepSpec

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.found.name

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The ε of the search, in the order of the sweep."""
        return self.spec.space.sweep.epsilons

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """One record per trial and reference, in the order of hand-out."""
        return self.found.records

    @property
    def sweep_epsilon(self) -> float | None:
        """The price of the whole sweep. None: no guarantee (`unaccounted`, a ceiling that was shown), or not priced yet."""
        return self.found.sweep_epsilon

    @property
    def stopped_by(self) -> str | None:
        """Why the sweep ended before its plan; None where it did not."""
        return self.found.stopped_by

    @property
    def has_winner(self) -> bool:
        """Whether a private trial came to its end at any ε."""
        return any(self.found.best(epsilon) is not None for epsilon in self.epsilons)

    @property
    def failures(self) -> str:
        """How many trials failed, and the last one's error; empty where none did."""
        failed = [record for record in self.trials if record.state == "failed"]
        return f"{len(failed)} failed, the last ({failed[-1].trial_id}) with {failed[-1].error}" if failed else ""

    def best(self, epsilon: float) -> TrialRecord:
        """The finished search trial with the highest PCKh@0.5 at `epsilon`; `.config` trains it.

        Raises:
            BadInput: the sweep has no such ε, or no trial there is done.
        """
        return best_trial(self.found, epsilon)

    def report(self) -> SweepReport:
        """The report; `.text()` is what `dpsweep report` prints. The results must be priced."""
        from sweeps.report.report import build_report

        return build_report(self.found, spec=self.spec)

    def to_arrow(self) -> pyarrow.Table:
        """One row per trial: scores as fractions, ε as numbers, the whole config as JSON."""
        return self.found.trial_table()

    def curves(self) -> pyarrow.Table:
        """One row per trial, step and metric."""
        return self.found.curve_table()

    def to_pandas(self) -> pandas.DataFrame:
        """`to_arrow` as a data frame.

        Raises:
            Unavailable: pandas is not installed.
        """
        try:
            import pandas  # noqa: F401  (an optional library: pyarrow's own message does not say what to do)
        except ImportError:
            raise Unavailable("to_pandas needs pandas, which is not installed: `pip install pandas`, or take to_arrow()") from None
        return self.to_arrow().to_pandas()

    def __repr__(self) -> str:
        return "\n".join([self._title(), render_table(self._header(), self._rows()), self._price()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(title)}</th>" for title in self._header())
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self._rows())
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<p><b>{escape(self._title())}</b></p>{table}<p>{escape(self._price())}</p>"

    def _title(self) -> str:
        return f"sweep {self.name}" + (f": ended before its plan, {self.stopped_by}" if self.stopped_by is not None else "")

    def _header(self) -> list[str]:
        return [title.format(metric=self.found.metric_title) for title in HEADER]

    def _rows(self) -> list[list[str]]:
        from sweeps.report.comparison import compare  # numpy: `dpsweep status` has no need of it

        rows = []
        for one in compare(self.found, self.epsilons, is_divided=self.spec.space.sweep.verdict_people is not None):
            done = sum(record.state == "done" for record in self.found.of_role("search", one.epsilon))
            winner = one.winner
            shown = ["–", "–", "–"] if winner is None else [winner.trial_id, winner.config.method, percent(one.winner_score)]
            rows.append([f"{one.epsilon:g}", *shown, percent(one.seed_mean), percent(one.floor), f"{done}"])
        return rows

    def _price(self) -> str:
        at = f"at δ = {self.found.delta:.3g} ({self.found.accounting})"
        if self.found.composed_epsilon is None:
            return f"price of the sweep {at}: not known here; the ledger has it"
        if self.found.sweep_epsilon is None:
            composed = f"; composed, all trials cost ε = {number(self.found.composed_epsilon)}"
            return f"price of the sweep {at}: no end-to-end guarantee{composed}"
        stand_in = "" if self.found.protected else "; stand-in data: ε as it would be"
        reads = self.spec.space.sweep.regime.reads_private
        counted = f"; counted {promise_of(self.spec.space).text()}" if reads else ""
        return f"price of the sweep {at}: ε = {number(self.found.sweep_epsilon)}{stand_in}{counted}"


def read_results(name: str, *, storage: str | Path = DEFAULT_STORAGE, state: str | Path | None = None) -> Results:
    """The results of a sweep, as far as it has come; priced where its ledger can be seen from this machine.

    Args:
        name: of the sweep.
        storage: folder of the sweeps, or a bucket's URI.
        state: folder of study, key and spool; None: where the sweep began.

    Raises:
        BadInput: there is no such sweep, or nothing has come out yet. Corrupt: a table does not read.
    """
    from sweeps.pricing.selection import with_releases

    spec = load_spec(name, storage, None if state is None else Path(state))
    with results_at_hand(spec) as folder:
        found = with_releases(read_tables(folder), spec.space)
    has_state = spec.bucket_uri is None or (spec.state_dir / SPEC_FILE).is_file()
    return Results(found=priced_now(found, spec) if has_state else found, spec=spec)


def priced_now(found: SweepResults, spec: SweepSpec) -> SweepResults:
    """The results with their price as the ledger stands: infinite once a sealed ceiling was shown.

    Raises:
        Unavailable: the ledger can't be reached.
    """
    from sweeps.pricing.plan import dp_accountant, priced
    from sweeps.pricing.sealed import was_unsealed
    from sweeps.records.charged import open_ledger

    if found.composed_epsilon is None:
        found = priced(found, open_ledger(spec, read_only=True), dp_accountant())
    return _without_guarantee(found) if found.of_role("sealed_ceiling") and was_unsealed(spec) else found


def _without_guarantee(found: SweepResults) -> SweepResults:
    return replace(found, composed_epsilon=math.inf, sweep_epsilon=None)


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best trial of a sweep at an ε, and what choosing the best of each ε cost.

    Attributes:
        record: the trial, with the score that the search saw.
        price: of the choice.
        answer: what was reached at the price of everything, over fresh seeds; None where that price is not known here.
        scored_on: of whom the record's own score is counted.
    """

    record: TrialRecord
    price: Price
    answer: EpsilonAnswer | None
    scored_on: str

    @property
    def headline(self) -> str | None:
        """The score at the price of the whole procedure."""
        return None if self.answer is None else self.answer.headline()

    def document(self) -> dict[str, Any]:
        """What `dpsweep best --json` prints. `epsilon_spent` of a private selection's winner is that of its selection. `pckh_50` and
        `score` are the trial's own, on `scored_on`; `seeds` is over fresh seeds, on people that no search saw where the sweep has some."""
        record, one = self.record, None if self.answer is None else self.answer.comparison
        seeds = None
        if one is not None and one.seed_mean is not None:
            seeds = {"mean": one.seed_mean, "stderr": one.errors.get("seeds"), "count": len(one.seed_scores), "people": one.people}
        return {
            "headline": self.headline,
            "seeds": seeds,
            "scored_on": self.scored_on,
            "epsilon_target": record.epsilon,
            "epsilon_spent": record.epsilon_spent,
            "delta": record.delta if record.delta is not None else record.config.delta,
            "method": record.config.method,
            "pckh_50": record.pckh_50,
            "pckh_10": record.pckh_10,
            "metric": record.metric,
            "score": record.score,
            "trial_id": record.trial_id,
            "fingerprint": record.fingerprint,
            "price": self.price.model_dump(mode="json"),
        }


def best_with_price(
    name: str,
    epsilon: float,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    state: str | Path | None = None,
    out: str | Path | None = None,
) -> Best:
    """`best`, with the price of the choice."""
    from sweeps.models.claims import price_of
    from sweeps.report.report import answer_at

    results = read_results(name, storage=storage, state=state)
    record, people = results.best(epsilon), results.spec.space.sweep.search_people
    found = Best(
        record=record,
        price=price_of(results.spec, results.found),
        answer=None if results.found.composed_epsilon is None else answer_at(results.found, record.at_epsilon, spec=results.spec),
        scored_on="all validation people, on whom it was chosen" if people is None else f"validation {people.text}",
    )
    if out is not None:
        write_exported(export_trial(found.record, results.spec, found.price), Path(out))
    return found


def best(
    name: str,
    epsilon: float,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    state: str | Path | None = None,
    out: str | Path | None = None,
) -> TrialRecord:
    """The best trial of a sweep at an ε; `out` takes its config as the file that `train` reads, with what it spent and cost.

    Raises:
        BadInput: there is no such sweep or ε, no trial there is done, or `out` is in no folder.
        Refused: `out` holds another config. Unavailable: the ledger that has the price can't be reached.
    """
    return best_with_price(name, epsilon, storage=storage, state=state, out=out).record


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report, and the files that hold it: the page first, then the text, figures and tables. `private_page` shows private pictures; it
    is there where somebody asked for it."""

    report: SweepReport
    files: tuple[Path, ...]
    private_page: Path | None = None

    def __str__(self) -> str:
        return self.report.text()


def report(
    name: str,
    *,
    storage: str | Path = DEFAULT_STORAGE,
    state: str | Path | None = None,
    out: str | Path | None = None,
    show_sealed: bool = False,
    show_private: bool = False,
) -> WrittenReport:
    """Writes a sweep's report again, into `report/` of the sweep unless `out` is given: one HTML page, Markdown, figures and tables.

    Args:
        name, storage, state: as for `read_results`.
        out: another folder.
        show_sealed: show the sealed ceiling: a release without privacy. The ledger's ε is ∞ from then on.
        show_private: write a second page that shows the winners' predictions on private pictures, for the owner of the data alone.

    Raises:
        BadInput: there is no such sweep, or no sealed ceiling to show. Refused: a cap is set, which ∞ passes.
        Unavailable: the state or the ledger can't be reached.
    """
    from sweeps.pricing.sealed import unseal_ceiling
    from sweeps.pricing.selection import with_releases
    from sweeps.report.curves import save_epsilon_curves
    from sweeps.report.page.files import MARKDOWN, PAGE, write_private_page, write_report
    from sweeps.report.page.pictures import draw_pictures

    spec = require_state(load_spec(name, storage, None if state is None else Path(state)))
    found = priced_now(with_releases(read_tables(spec.sweep_dir), spec.space), spec)
    if show_sealed:
        found = _without_guarantee(unseal_ceiling(found, spec))
    built = detailed_report(found, spec)
    folder = Path(out) if out is not None else spec.sweep_dir / REPORT
    pictures = draw_pictures(built.comparisons, spec)
    figures: Sequence[Path] = (*write_report(built, folder, results=found, pictures=pictures), *save_epsilon_curves(found, folder))
    private = write_private_page(built, spec, spec.state_dir / "sealed") if show_private else None
    if out is None:
        publish(spec, REPORT)
    return WrittenReport(report=built, files=(folder / PAGE, folder / MARKDOWN, *figures), private_page=private)


def detailed_report(found: SweepResults, spec: SweepSpec) -> SweepReport:
    """The report with everything that its files say, priced under each regime."""
    from sweeps.pricing.plan import dp_accountant, plan_sweep
    from sweeps.report.report import build_report, with_details

    cache_dir = spec.places.cache_dir
    plan = plan_sweep(spec.space, dp_accountant(cache_dir), cache_dir=cache_dir)
    return with_details(build_report(found, spec=spec), found, spec=spec, plan=plan)
