"""Comparison, report and figure from records made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text

from dpcore.config import Places, TrialConfig
from search_spaces.loader import load_space
from sweeps.pricing.regimes import NO_GUARANTEE
from sweeps.records.results import SweepResults, TrialRecord
from sweeps.records.spec import SweepSpec
from sweeps.report.comparison import DOTS_DIFFER, compare
from sweeps.report.details.answers import EpsilonAnswer
from sweeps.report.details.price import STAND_IN
from sweeps.report.figures import draw_comparison
from sweeps.report.page.curves_figure import score_range
from sweeps.report.page.files import write_report
from sweeps.report.report import build_report

DATA = {"private": "p", "public": "q", "validation": "v", "nominal_examples": 100}
PRIVATE: dict[str, Any] = {"stages": {"private": {"steps": 4, "expected_batch_size": 10}}, "data": DATA}
SPLITS = {name: {"name": name, "transform": "gaussian_blur", "sigma_px": sigma} for name, sigma in (("weak", 2.0), ("strong", 8.0))}
VIEW = {**PRIVATE, "stages": {**PRIVATE["stages"], "public_view": {"steps": 3}}}


def private(
    epsilon: float, score: float, *, method: str = "dpsgd", role: str = "search", number: int = 0, split: str = "weak"
) -> TrialRecord:
    extra = {} if method == "dpsgd" else {"split": SPLITS[split], "private_weight": 0.0 if role == "control" else 1.0}
    config = TrialConfig(**PRIVATE, method=method, epsilon=epsilon, delta=1e-3, clip_norm=1.0, **extra)
    return TrialRecord(
        trial_id=f"{role}-e{epsilon:g}-{method}-{number}",
        role=role,
        number=number,
        config=config,
        epsilon=epsilon,
        state="done",
        pckh_50=score,
        epsilon_spent=epsilon * 0.999,
        steps=4,
    )


def reference(role: str, score: float, *, split: str | None = None) -> TrialRecord:
    if split is not None:
        config = TrialConfig(**VIEW, method="public_only", start="public_view", split=SPLITS[split])
    else:
        config = TrialConfig(**PRIVATE, method="nonprivate")
    return TrialRecord(trial_id=f"{role}-{split}", role=role, number=0, config=config, state="done", pckh_50=score)


def results_of(*records: TrialRecord, accounting: str = "composed", protected: bool = False) -> SweepResults:
    price = None if accounting == "unaccounted" else 2.5
    return SweepResults(
        name="shown", records=records, accounting=accounting, delta=1e-5, sweep_epsilon=price, composed_epsilon=2.5, protected=protected
    )


FULL = (
    private(0.8, 0.60),
    private(0.8, 0.66, method="feature", number=1),
    private(0.8, 0.64, role="seed", method="feature", number=2),
    private(0.8, 0.66, role="seed", method="feature", number=3),
    replace(private(0.8, 0.61, method="feature", role="control"), epsilon_spent=0.0),
    private(8.0, 0.70),
    private(8.0, 0.62, role="seed", number=4),
    private(8.0, 0.70, role="seed", number=5),
    reference("floor", 0.62, split="weak"),
    reference("floor", 0.58, split="strong"),
    reference("ceiling", 0.75),
)


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return SweepSpec(
        name="shown", space=load_space("quick", assignments=["sweep.validation_search_frac=null"]), places=places, storage=tmp_path
    )


def test_winner_seeds_floor_ceiling_and_control_of_each_epsilon() -> None:
    low, high = compare(results_of(*FULL), (0.8, 8.0))
    assert low.winner is not None
    assert low.winner.config.method == "feature"
    assert low.seed_mean == pytest.approx(0.65)
    assert low.seed_spread == pytest.approx(0.02)
    assert (low.floor, low.control, low.ceiling) == (0.62, 0.61, 0.75)
    assert low.gain == pytest.approx(0.03)
    assert high.gain == pytest.approx(0.04)
    assert (low.interval, high.interval) == (None, None)
    assert {method: record.pckh_50 for method, record in low.by_method.items()} == {"dpsgd": 0.60, "feature": 0.66}


def test_the_floor_is_the_highest_of_all_public_recipes_whatever_the_winner_reads() -> None:
    strong = private(0.8, 0.66, method="feature", split="strong")
    floors = reference("floor", 0.62, split="weak"), reference("floor", 0.58, split="strong")
    assert compare(results_of(strong, *floors), (0.8,))[0].floor == 0.62
    free = replace(reference("floor", 0.64, split="weak"), trial_id="e0.8-009", role="search", epsilon=0.8)
    assert compare(results_of(strong, *floors, free), (0.8,))[0].floor == 0.64
    other = replace(private(8.0, 0.65, method="feature", role="control"), epsilon_spent=0.0)
    bar = compare(results_of(strong, *floors, other), (0.8,))[0].bar
    assert bar is not None
    assert bar.pckh_50 == 0.65


def test_where_people_are_divided_the_winners_own_score_is_not_shown_beside_scores_of_others() -> None:
    (one,) = compare(results_of(*FULL), (0.8,), is_divided=True)
    assert one.winner is not None
    assert (one.winner_score, one.method_score("dpsgd")) == (None, None)
    assert one.seed_mean == pytest.approx(0.65)


def test_dots_of_a_divided_sweep_stand_where_floor_and_seeds_were_scored() -> None:
    (one,) = compare(results_of(*FULL), (0.8,), is_divided=True)
    alone = replace(one, seeds=(), floor_run=None, control_run=None, ceiling_run=None)
    seen = replace(alone, rescored={record.trial_id: 0.3 + 0.01 * place for place, record in enumerate(alone.searched)})
    low, high = score_range([seen])
    assert 0.2 < low < 0.3 < high < 0.4  # on the people of the search they had 60 to 66 %
    figure = draw_comparison([seen], title="t", caption="")
    dots = [line for line in figure.axes[0].lines if line.get_alpha() == 0.45]
    assert sorted(round(float(y), 1) for line in dots for y in line.get_ydata()) == [30.0 + place for place in range(len(alone.searched))]


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("projected", {"subspace": {"rank": 8}}, "projected"),
        ("projected", {"subspace": {"rank": "full"}}, "projected, which with these settings is DP-SGD"),
        ("feature", {"split": SPLITS["weak"], "public_weight": 0.0}, "feature, which with these settings is DP-SGD"),
        (
            "feature_projected",
            {"split": SPLITS["weak"], "public_weight": 0.0, "subspace": {"rank": 8}},
            "feature projected, which with these settings is projected",
        ),
        (
            "feature_projected",
            {"split": SPLITS["weak"], "public_weight": 0.5, "subspace": {"rank": "full"}},
            "feature projected, which with these settings is feature",
        ),
    ],
)
def test_a_method_whose_settings_leave_a_part_out_is_called_by_what_it_does(method: str, settings: dict[str, Any], said: str) -> None:
    config = TrialConfig(**PRIVATE, method=method, epsilon=0.8, delta=1e-3, clip_norm=1.0, **settings)
    (one,) = compare(results_of(replace(private(0.8, 0.6), config=config)), (0.8,))
    assert EpsilonAnswer(comparison=one, price="–", total="–", metric="PCKh@0.5").method == said


def test_of_more_trials_than_are_scored_again_dots_stay_on_the_people_of_the_search_and_the_figure_says_so() -> None:
    (one,) = compare(results_of(*FULL), (0.8,), is_divided=True)
    seen = replace(one, rescored={one.searched[0].trial_id: 0.3})
    assert seen.dots_differ
    assert [seen.dot(record) for record in one.searched] == [record.pckh_50 for record in one.searched]
    assert DOTS_DIFFER in " ".join(text.get_text() for text in draw_comparison([seen], title="t", caption="c").findobj(Text))


def test_failed_trials_have_no_part_in_it() -> None:
    failed = replace(private(0.8, 0.99), state="failed")
    (one,) = compare(results_of(failed), (0.8,))
    assert (one.winner, one.by_method, one.gain) == (None, {}, None)


def test_report_shows_scores_in_percent_the_price_and_the_next_commands(spec: SweepSpec) -> None:
    text = build_report(results_of(*FULL), spec=spec).text()
    row = next(line for line in text.splitlines() if line.startswith("0.8"))
    assert row.split() == ["0.8", "feature", "66.0", "65.0", "2.0", "0.799", "62.0", "61.0", "75.0"]
    assert text.splitlines()[2].startswith("PCKh@0.5 65.0 % (mean of 2 fresh seeds) at ε = 2.500 in all at δ = 1e-05 (choosing and fresh")
    assert text.splitlines()[2].endswith("one trial alone has ε = 0.8")
    assert "65.0 (1, mean of 2 fresh seeds)" in text
    assert "60.0 (1)" in text
    assert "price of this sweep (composed): ε = 2.500 at δ = 1e-05 for 7 private trials" in text
    assert "counted per image, added or removed; public: the views of every image under" in text
    assert "accountants: spent ε of one trial by PLD; the price by PLD too" in text
    assert "composed, per image, added or removed): a model here" in build_report(results_of(*FULL), spec=spec).price.caption()
    assert STAND_IN in text
    assert "\n    dpsweep best shown --epsilon 0.8 --out best.yaml" in text
    assert "\n    dpsweep extend shown --trials +8 --dry-run" in text
    assert "\n    dpsweep ui" in text
    assert "at a price of ε = 2.500 (composed): not clear, how it varies between validation people is not known" in text
    assert "worth its price" not in text


def test_no_report_proposes_an_extension_that_would_be_refused(spec: SweepSpec) -> None:
    fixed = spec.space.sweep.model_copy(update={"stopper": "halving"})
    halving = spec.model_copy(update={"space": spec.space.model_copy(update={"sweep": fixed})})
    assert "dpsweep extend" not in build_report(results_of(*FULL), spec=halving).text()


def test_the_report_says_how_the_cap_of_a_sweep_was_held(spec: SweepSpec) -> None:
    capped = spec.space.model_copy(update={"sweep": spec.space.sweep.model_copy(update={"epsilon_total": 17.3})})
    text = build_report(results_of(*FULL), spec=spec.model_copy(update={"space": capped})).text()
    assert "cap: epsilon_total 17.3, held by PLD while this sweep is alone in its ledger, and by an RDP filter (order" in text


def test_an_unaccounted_sweep_says_so_in_its_headline(spec: SweepSpec) -> None:
    report = build_report(results_of(*FULL, accounting="unaccounted"), spec=spec)
    assert NO_GUARANTEE in report.text().splitlines()[0]
    assert "composed would have cost ε = 2.500" in report.text()
    assert f"**{NO_GUARANTEE}**" in report.markdown()
    assert NO_GUARANTEE in report.price.caption()


def test_protected_data_is_not_called_a_stand_in(spec: SweepSpec) -> None:
    report = build_report(results_of(*FULL, protected=True), spec=spec)
    assert STAND_IN not in report.text()
    assert "stand-in" not in report.price.caption().lower()


def test_markdown_and_figures_are_written_and_equal_the_second_time(spec: SweepSpec, tmp_path: Path) -> None:
    report = build_report(results_of(*FULL), spec=spec)
    figures = write_report(report, tmp_path / "report")
    first = [path.read_bytes() for path in figures]
    assert [path.suffix for path in figures] == [".png", ".svg"]
    assert first[0].startswith(b"\x89PNG")
    assert [path.read_bytes() for path in write_report(report, tmp_path / "report")] == first
    markdown = (tmp_path / "report" / "report.md").read_text()
    assert "| 0.8 | feature | 66.0 |" in markdown
    assert "![PCKh@0.5 over ε](pckh_over_epsilon.svg)" in markdown
    assert "Choosing cost ε = 2.50" in markdown


def test_a_sweep_without_a_finished_trial_still_has_a_report(spec: SweepSpec, tmp_path: Path) -> None:
    report = build_report(results_of(), spec=spec)
    assert "no private trial is done" in report.text()
    assert "best.yaml" not in report.text()
    write_report(report, tmp_path / "report")
