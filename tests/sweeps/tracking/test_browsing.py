"""What MLflow's pages show: names, notes that fit, links."""

import pytest

from sweeps.tracking.browsing import NOTE_LENGTH, experiment_note, experiment_url, linked, run_name


@pytest.mark.parametrize(
    ("epsilon", "score", "name"),
    [
        ("0.8", None, "ε 0.8 · dpsgd · t"),
        ("0", 0.0, "ε 0 · 0.0 % · dpsgd · t"),
        ("inf", 0.6301, "ε ∞ · 63.0 % · dpsgd · t"),
        ("1.483721", 0.5, "ε 1.484 · 50.0 % · dpsgd · t"),
    ],
)
def test_a_name_says_epsilon_method_score_and_trial(epsilon: str, score: float | None, name: str) -> None:
    assert run_name(epsilon=epsilon, method="dpsgd", trial_id="t", score=score) == name


def test_a_note_that_is_too_long_leaves_whole_claims_to_their_runs() -> None:
    claims = {f"e{number}-000": "word " * 450 for number in (1, 2, 4, 8)}
    note = experiment_note(verdicts=["ε = 1: better"], price=["ε = 3.7"], claims=claims, pages=["report.html"])
    whole = linked(note, experiment_id="123456789", run_of=lambda key: "a" * 32)
    assert len(whole) <= NOTE_LENGTH
    assert whole.startswith("ε = 1: better\n")
    assert note.count(claims["e1-000"].strip()) == 1
    assert note.count("It stands in the description of that run.") == 3


def test_the_link_opens_the_runs_and_not_the_traces_of_language_models() -> None:
    assert experiment_url("http://lab:5000/", "3") == "http://lab:5000/#/experiments/3/runs?workflowType=machine_learning"
