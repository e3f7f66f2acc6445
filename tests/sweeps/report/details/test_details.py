"""What a report says beyond its tables, from made-up records."""

import itertools
import math
from pathlib import Path

import pytest
from report.made_sweep import EPSILONS, JOINTS, report_of, results_of, spec_in

from dpcore.config import Places
from sweeps.records.spec import SweepSpec
from sweeps.report.details.clip_table import clip_table
from sweeps.report.details.details import ReportDetails
from sweeps.report.details.expected_best import common_size, expected_best
from sweeps.report.details.settings import drawn_values, searched_settings
from sweeps.report.details.statement import certainty


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return spec_in(tmp_path, places)


@pytest.fixture
def details(spec: SweepSpec) -> ReportDetails:
    found = report_of(results_of(spec), spec).details
    assert found is not None
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_expected_best_is_the_mean_over_all_subsets(k: int) -> None:
    scores = [0.31, 0.52, 0.47, 0.11, 0.52]
    subsets = [max(one) for one in itertools.combinations(scores, k)]
    assert expected_best(scores, k) == pytest.approx(sum(subsets) / len(subsets))


def test_a_larger_search_is_not_flattered_by_its_size() -> None:
    few, many = [0.4, 0.6], [0.4, 0.6] * 20
    k = common_size({"few": few, "many": many, "none": []})
    assert k == 2
    assert expected_best(many, k) < expected_best(few, k) == max(few)


def test_more_than_there_are_cannot_be_chosen_from() -> None:
    with pytest.raises(ValueError, match="from 1 to 2"):
        expected_best([0.1, 0.2], 3)


def test_a_setting_that_is_not_active_is_absent(spec: SweepSpec) -> None:
    for record in results_of(spec).of_role("search"):
        drawn = drawn_values(record, searched_settings(spec.space, record.at_epsilon), spec.space)
        assert ("subspace.rank" in drawn) == record.config.traits.projects
        assert ("split" in drawn) == record.config.traits.uses_views
        assert drawn["clip_norm"] == record.config.clip_norm


def test_importances_are_shares_of_every_searched_setting(details: ReportDetails) -> None:
    for search in details.searches:
        assert search.importances.trials == 11
        assert sum(search.importances.shares.values()) == pytest.approx(1.0)
        assert {"method", "clip norm", "rank", "public weight"} <= search.importances.shares.keys()


def test_few_trials_tell_nothing_about_importance(spec: SweepSpec) -> None:
    found = report_of(results_of(spec, trials=6), spec).details
    assert found is not None
    assert [one.importances.shares for one in found.searches] == [{}, {}]
    text = report_of(results_of(spec, trials=6), spec).markdown()
    assert "- importance at ε = 0.8: it needs 10 finished trials at an ε, and here are 5" in text


def test_every_finished_trial_stands_in_one_bin_of_its_clip_norm(spec: SweepSpec) -> None:
    results = results_of(spec)
    found = clip_table(results, spec.space, EPSILONS)
    assert found is not None
    assert sum(cell.trials for row in found.rows for cell in row.cells) == 2 * 11
    assert [row.clip_norm for row in found.rows[:3]] == ["0.1 – 0.22", "0.22 – 0.46", "0.46 – 1"]
    best = max(cell.best for row in found.rows for cell in row.cells if cell.best is not None)
    assert best == max(record.pckh_50 for record in results.of_role("search") if record.pckh_50)


def test_joints_are_the_mean_of_the_fresh_seeds_beside_floor_and_ceiling(details: ReportDetails) -> None:
    low = details.joints[0]
    assert [one.joint for one in low.joints] == list(JOINTS)
    assert low.seeds == 2
    assert (low.joints[1].floor, low.joints[1].ceiling) == (pytest.approx(0.49), pytest.approx(0.59))


def test_winners_are_compared_in_what_was_searched_and_in_what_they_spend(details: ReportDetails) -> None:
    labels = {one.label: one for one in details.differences}
    assert labels["clip norm"].differs
    assert not labels["noise multiplier"].differs
    assert labels["private steps"].values == ("40", "40")


def test_the_statement_answers_each_part_of_the_guideline_and_says_why_a_claim_is_missing(details: ReportDetails) -> None:
    statement = details.statement
    assert {row.part[-10:] for row in statement.rows} == {"section 2)", "section 3)", "section 4)"}
    assert all(row.answer for row in statement.rows)
    text = " ".join(row.answer for row in statement.rows)
    assert "ε = 4.372 at δ = 1e-05" in text
    assert "for the data owner to say" in text
    # 4.372 of everything together: odds of one to one become e^4.372 to one at most.
    assert "everything together: 98.8 %" in text
    assert "Somebody who is in the data k times is protected by about k times this ε" in text


def test_odds_of_one_to_one_become_e_to_the_epsilon_to_one() -> None:
    assert certainty(math.log(3)) == "75.0 %"
    assert certainty(math.log(2000)) == "above 99.9 %"
