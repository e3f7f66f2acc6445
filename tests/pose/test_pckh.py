"""PCKh: against a loop, by hand, and as a monoid."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcore.errors import BadInput
from dpcore.pose.pckh import PckhState, head_size_of_box, person_counts
from dpcore.pose.skeleton import MPII_16


def random_people(count: int, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    truth = generator.uniform(0, 64, size=(count, 16, 2))
    # multiples of a quarter of the head size put many joints exactly on a threshold
    head = generator.choice([8.0, 10.0, 12.0], size=count)
    step = generator.integers(0, 5, size=(count, 16)) * head[:, None] / 8
    predicted = truth + np.stack([step, np.zeros_like(step)], axis=-1)
    return predicted, truth, generator.random((count, 16)) > 0.3, head


def brute_force_mean(
    predicted: np.ndarray[Any, Any],
    truth: np.ndarray[Any, Any],
    visible: np.ndarray[Any, Any],
    head: np.ndarray[Any, Any],
    threshold: float,
) -> float:
    hits = total = 0
    for i in range(len(predicted)):
        for j in range(16):
            if j in (6, 7) or not visible[i, j]:
                continue
            total += 1
            dx, dy = predicted[i, j] - truth[i, j]
            hits += math.sqrt(dx * dx + dy * dy) / head[i] <= threshold
    return hits / total


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), threshold=st.sampled_from([0.5, 0.1]))
def test_mean_equals_a_loop_over_joints(seed: int, count: int, threshold: float) -> None:
    people = random_people(count, seed)
    assert PckhState.of(*people).mean(threshold) == brute_force_mean(*people, threshold)


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 9))
def test_any_partition_and_any_order_give_the_same_state(seed: int, cut: int) -> None:
    people = random_people(9, seed)
    whole = PckhState.of(*people)
    first = PckhState.of(*(part[:cut] for part in people))
    second = PckhState.of(*(part[cut:] for part in people))
    order = np.random.default_rng(seed).permutation(9)
    assert first + second == second + first == whole
    assert PckhState.of(*(part[order] for part in people)) == whole
    assert whole + PckhState.empty() == whole


def test_a_distance_of_exactly_the_threshold_is_a_hit() -> None:
    truth = np.zeros((1, 16, 2))
    predicted = truth + np.array([3.0, 4.0])
    assert PckhState.of(predicted, truth, np.ones((1, 16)), np.array([10.0])).mean() == 1.0
    assert PckhState.of(predicted, truth, np.ones((1, 16)), np.array([9.999])).mean() == 0.0


def test_pelvis_and_thorax_do_not_enter_the_mean_and_joints_weigh_by_visibility() -> None:
    truth, visible = np.zeros((4, 16, 2)), np.zeros((4, 16))
    predicted = truth.copy()
    visible[:, [6, 7]] = 1  # always hit, never counted
    visible[:, 0] = 1  # four ankles, all missed
    visible[0, 9] = 1  # one head top, hit
    predicted[:, 0] = 50.0
    state = PckhState.of(predicted, truth, visible, np.full(4, 10.0))
    assert state.mean() == pytest.approx(1 / 5)
    assert state.per_joint()["pelvis"] == 1.0
    assert math.isnan(state.per_joint()["l_knee"])


def test_groups_are_means_of_left_and_right_whatever_their_counts() -> None:
    truth, visible = np.zeros((4, 16, 2)), np.zeros((4, 16))
    predicted = truth.copy()
    visible[:, 10], visible[0, 15] = 1, 1
    predicted[:, 10] = 50.0
    groups = PckhState.of(predicted, truth, visible, np.full(4, 10.0)).groups()
    assert groups["wrist"] == 0.5
    assert math.isnan(groups["head"])
    assert list(groups) == ["head", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"]


def test_nan_predictions_are_misses_and_unknown_head_sizes_are_not_counted() -> None:
    truth = np.zeros((3, 16, 2))
    predicted = truth.copy()
    predicted[0] = math.nan
    state = PckhState.of(predicted, truth, np.ones((3, 16)), np.array([10.0, 10.0, math.nan]))
    assert state.mean() == 0.5
    assert state.counted == (2,) * 16


def test_an_invisible_joint_may_be_nan_and_a_visible_one_may_not() -> None:
    truth, visible = np.zeros((2, 16, 2)), np.ones((2, 16))
    truth[1, 3] = math.nan
    visible[1, 3] = 0
    assert PckhState.of(np.zeros((2, 16, 2)), truth, visible, np.full(2, 10.0)).mean() == 1.0
    visible[1, 3] = 1
    with pytest.raises(BadInput, match="example 1, joint l_hip"):
        PckhState.of(np.zeros((2, 16, 2)), truth, visible, np.full(2, 10.0))


def test_nothing_countable_has_no_mean() -> None:
    with pytest.raises(BadInput, match="no mean"):
        PckhState.empty().mean()


def test_shapes_that_do_not_agree_are_named() -> None:
    with pytest.raises(BadInput, match="visible must have the shape"):
        PckhState.of(np.zeros((2, 16, 2)), np.zeros((2, 16, 2)), np.ones((2, 14)), np.ones(2))
    with pytest.raises(BadInput, match=r"not at 0\.2"):
        PckhState.empty().per_joint(0.2)


def test_head_size_is_six_tenths_of_the_diagonal() -> None:
    assert head_size_of_box([[[1, 2], [4, 6]]]).tolist() == [pytest.approx(3.0)]
    with pytest.raises(BadInput, match=r"\(N, 2, 2\)"):
        head_size_of_box(np.zeros((3, 4)))


def test_mpii_validation_annotations_score_themselves_fully(shared_data: Any) -> None:
    with np.load(shared_data / "mpii" / "mpii_val_annotations.npz") as mpii:
        head = head_size_of_box(mpii["head_box"].reshape(-1, 2, 2))
        np.testing.assert_allclose(head, mpii["head_size"], rtol=1e-4)
        state = PckhState.of(mpii["joints"], mpii["joints"], mpii["labelled"], head)
    assert state.mean() == 1.0
    assert sum(state.counted) > 40_000


def test_a_person_s_counts_are_of_scored_joints_alone() -> None:
    truth = np.zeros((3, 16, 2))
    predicted = np.zeros((3, 16, 2))
    predicted[0, 0] = 100.0
    predicted[1] = np.nan
    visible = np.zeros((3, 16), dtype=bool)
    visible[:2, [0, 1, 2, 3]] = True
    visible[:, ~MPII_16.scored] = True
    counts = person_counts(predicted, truth, visible, np.array([10.0, 10.0, 10.0]))
    assert counts.tolist() == [[3, 4], [0, 4], [0, 0]]
    assert not person_counts(truth, truth, visible, np.array([np.nan, 0.0, -1.0])).any()
