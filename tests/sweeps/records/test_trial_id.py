"""Names of trials and of ε: written and read in one place, and no two ε under one name."""

from pathlib import Path

import pytest
import spaces
from hypothesis import example, given
from hypothesis import strategies as st

from dpcore.config import Places
from dpcore.errors import BadInput, Refused
from sweeps.records.spec import SweepSpec
from sweeps.records.trial_id import TrialId, alias_of, epsilon_name, nearest_epsilon
from sweeps.search.studies import Studies

EPSILONS = st.floats(min_value=1e-6, max_value=200.0)
THIRD = 0.1 + 0.2
"""0.30000000000000004, which six digits call 0.3."""


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (TrialId.search(0.8, 3), "e0.8-003"),
        (TrialId.search(2.0, "00af31bc9d"), "e2-00af31bc9d"),
        (TrialId.seed(0.8, 1), "seed-e0.8-1"),
        (TrialId.control(16.0), "control-e16"),
        (TrialId.selection(1e-5), "selection-e1e-05"),
        (TrialId.search(1e-5, 7), "e1e-05-007"),
        (TrialId.floor("blur_10"), "floor-blur_10"),
        (TrialId.floor("e0.8", converged=True), "floor-e0.8-converged"),
        (TrialId.search(0.8, 3).again.again, "e0.8-003.again.again"),
        (TrialId.seed(0.8, 1).again.score, "seed-e0.8-1.again/score"),
        (TrialId.search(0.8, 3).again.to_rung(18), "e0.8-003.again/to-18"),
        (TrialId.search(THIRD, 1234), "e0.30000000000000004-1234"),
    ],
)
def test_a_trial_id_is_read_as_it_was_written(made: TrialId, text: str) -> None:
    assert str(made) == text
    assert TrialId.parse(text) == made


@pytest.mark.parametrize("text", ["ceiling", "public-start", "train-0f3a5c", "seed-e2", "e2", "selection-e2-1", "exam-3", "e-003"])
def test_any_other_name_is_plain_and_stays_as_it_is(text: str) -> None:
    assert TrialId.parse(text).kind == "plain"
    assert str(TrialId.parse(text)) == text


@given(epsilon=EPSILONS, number=st.integers(0, 10**7), replaced=st.integers(0, 3), is_score=st.booleans())
def test_an_id_carries_its_epsilon_to_the_last_digit(epsilon: float, number: int, replaced: int, is_score: bool) -> None:
    made = TrialId(kind="search", epsilon=epsilon, label=f"{number:03d}", replaced=replaced, is_score=is_score)
    assert TrialId.parse(str(made)) == made
    assert made.trial.score.trial == TrialId(kind="search", epsilon=epsilon, label=f"{number:03d}", replaced=replaced)


@given(EPSILONS, EPSILONS)
@example(0.3, 0.30000000000000004)
@example(2.0000001, 2.0000002)
def test_two_epsilons_have_two_names(one: float, other: float) -> None:
    assert (epsilon_name(one) == epsilon_name(other)) == (one == other)
    assert (alias_of(one) == alias_of(other)) == (one == other)


def test_names_that_six_digits_tell_exactly_stay_as_short_as_they_were() -> None:
    assert [epsilon_name(one) for one in (0.8, 2.0, 16.0, 0.2, 1e-5)] == ["0.8", "2", "16", "0.2", "1e-05"]
    assert alias_of(0.8) == "best-eps-0_8"


@pytest.mark.parametrize("name", ["blur.again", "blur/score", "blur/to-3"])
def test_a_name_that_would_be_read_as_a_suffix_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="choose another name"):
        TrialId.floor(name)


def test_an_epsilon_is_found_as_a_person_writes_it() -> None:
    assert nearest_epsilon(0.3, (0.2, THIRD), where="sweep s") == THIRD
    assert nearest_epsilon(0.3, (0.3, THIRD), where="sweep s") == 0.3
    assert nearest_epsilon(2.0000001, (2.0000001, 2.0000002), where="sweep s") == 2.0000001
    with pytest.raises(BadInput, match=r"sweep s has no ε = 2; expected one of 2\.0000001, 2\.0000002"):
        nearest_epsilon(2.0, (2.0000001, 2.0000002), where="sweep s")
    with pytest.raises(BadInput, match=r"several ε = 1; expected one of 1\.0000000001, 1\.0000000002"):
        nearest_epsilon(1.0, (1.0000000001, 1.0000000002), where="sweep s")


def spec_of(tmp_path: Path, *epsilons: float) -> SweepSpec:
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    spec = SweepSpec(name="s", space=spaces.space(sweep={"epsilons": list(epsilons)}), places=places, storage=tmp_path / "store")
    spec.state_dir.mkdir(parents=True, exist_ok=True)
    return spec


def test_epsilons_that_six_digits_call_alike_have_studies_of_their_own(tmp_path: Path) -> None:
    studies = Studies(spec_of(tmp_path, 2.0000001, 2.0000002))
    ids = [studies.ask(epsilon, 0).trial_id for epsilon in (2.0000001, 2.0000002)]
    assert ids == ["e2.0000001-000", "e2.0000002-000"]
    assert [record.trial_id for record, _ in Studies(spec_of(tmp_path, 2.0000001, 2.0000002)).records()] == ids


def test_a_sweep_whose_epsilon_was_named_by_six_digits_is_refused_with_the_version_that_began_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("sweeps.search.studies.study_of", lambda epsilon: f"epsilon-{epsilon:g}")
        Studies(spec_of(tmp_path, THIRD))
    with pytest.raises(Refused, match=r"dpsweep 0\.1\.0, which named ε = 0\.30000000000000004 by six digits \(epsilon-0\.3\)"):
        Studies(spec_of(tmp_path, THIRD))
