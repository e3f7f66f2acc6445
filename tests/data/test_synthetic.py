"""Synthetic people: deterministic, articulated, labelled where they are drawn, two domains that differ."""

from pathlib import Path

import numpy as np
import pytest

from dpcore.data import synthetic
from dpcore.data.labelling import labels_of
from dpcore.data.people import Person, draw_person
from dpcore.data.rendering import render_person
from dpcore.data.shards import open_shards
from dpcore.data.synthetic import DOMAINS, PEOPLE_VERSION, SIZE_PX, draw_record, synth
from dpcore.errors import BadInput
from dpcore.pose.skeleton import MPII_16

JOINTS = MPII_16.index


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_a_record_depends_on_domain_seed_and_index_alone(domain: str) -> None:
    first, again = (draw_record(domain, seed=4, index=7) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints, again.keypoints)
    for other in (draw_record(domain, seed=5, index=7), draw_record(domain, seed=4, index=8)):
        assert other.content_hash != first.content_hash


def test_domains_do_not_share_people() -> None:
    assert not np.array_equal(draw_record("public", seed=1, index=0).keypoints, draw_record("private", seed=1, index=0).keypoints)


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_people_fill_the_crop_and_heads_are_eight_to_twelve_px(domain: str) -> None:
    people = [draw_record(domain, seed=0, index=index) for index in range(60)]
    sides = [np.ptp(person.keypoints, axis=0).max() for person in people]
    heads = [person.head_size_px for person in people]
    assert 35 < np.median(sides) < 60
    assert 8 - 1e-6 <= min(heads) <= max(heads) <= 12 + 1e-6
    assert 0.9 < np.mean([person.visible for person in people]) < 1.0


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_limbs_are_foreshortened_and_never_longer_than_in_space(domain: str) -> None:
    shares = []
    for index in range(60):
        person = draw_record(domain, seed=0, index=index)
        upper_arm = np.linalg.norm(person.keypoints[JOINTS["l_shoulder"]] - person.keypoints[JOINTS["l_elbow"]])
        shares.append(upper_arm / (person.head_size_px / 24.84 * 27.0))
    assert max(shares) <= 1.001
    assert np.std(shares) > 0.05


def test_the_private_domain_marks_other_points_of_a_body_than_the_public_one() -> None:
    """A body that stands upright and faces the camera, its arms down, 1 px a cm: worked out by hand."""
    joints = np.zeros((16, 3))
    for name, (x, y) in {
        "upper_neck": (50, 40), "head_top": (50, 7), "thorax": (50, 48), "pelvis": (50, 93),
        "r_shoulder": (32, 48), "r_elbow": (32, 75), "r_wrist": (32, 100), "r_hip": (40, 93), "r_knee": (40, 131), "r_ankle": (40, 168),
        "l_shoulder": (68, 48), "l_elbow": (68, 75), "l_wrist": (68, 100), "l_hip": (60, 93), "l_knee": (60, 131), "l_ankle": (60, 168),
    }.items():  # fmt: skip
        joints[JOINTS[name], :2] = x, y
    toes = np.array([[-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # the right foot points aside, the left one to the camera
    person = Person(joints=joints, forward=np.array([0.0, 0.0, 1.0]), toes=toes, px_per_cm=1.0)
    np.testing.assert_array_equal(labels_of(person, DOMAINS["public"].labels), joints[:, :2])
    marked = labels_of(person, DOMAINS["private"].labels)
    moved = {
        "r_hip": (40 - 0.35 * 8, 93 - 0.35 * 45), "l_hip": (60 + 0.35 * 8, 93 - 0.35 * 45), "pelvis": (50, 93 - 0.35 * 45),
        "head_top": (50, 23.5), "r_wrist": (32, 111.25), "l_wrist": (68, 111.25), "r_ankle": (26, 168),
    }  # fmt: skip
    for name, index in JOINTS.items():
        np.testing.assert_allclose(marked[index], moved.get(name, joints[index, :2]), err_msg=name)


def test_a_label_is_hidden_where_it_is_marked_and_not_where_the_joint_is() -> None:
    """Whatever stands in front of the private domain's labels was drawn before them: the visible ones lie on no occluder."""
    for index in range(60):
        generator = np.random.default_rng([PEOPLE_VERSION, DOMAINS["private"].stream, 0, index])
        person = draw_person(DOMAINS["private"].pose, generator, size_px=SIZE_PX)
        label = labels_of(person, DOMAINS["private"].labels)
        _, hidden = render_person(person, DOMAINS["private"].look, generator, size_px=SIZE_PX, labels_px=label)
        inside = ((label >= -0.5) & (label <= SIZE_PX - 0.5)).all(axis=1)
        np.testing.assert_array_equal(draw_record("private", seed=0, index=index).visible, inside & ~hidden)


def test_joints_outside_the_crop_are_not_visible() -> None:
    for index in range(60):
        person = draw_record("private", seed=0, index=index)
        inside = ((person.keypoints >= -0.5) & (person.keypoints <= 63.5)).all(axis=1)
        assert not (person.visible & ~inside).any()


def test_a_person_stands_out_at_its_joints() -> None:
    """The drawing and the labels agree: pixels at the pelvis differ from the crop's corners."""
    differences = []
    for index in range(60):
        person = draw_record("public", seed=0, index=index)
        x, y = np.rint(person.keypoints[JOINTS["pelvis"]]).astype(int)
        corners = person.image[[0, 0, -1, -1], [0, -1, 0, -1]].astype(float)
        differences.append(np.abs(corners - person.image[y, x]).mean())
    assert np.median(differences) > 30


def test_the_domains_differ_in_brightness_texture_and_pose() -> None:
    images = {d: np.stack([draw_record(d, seed=0, index=i).image for i in range(60)]).astype(float) for d in DOMAINS}
    poses = {d: np.stack([draw_record(d, seed=0, index=i).keypoints for i in range(60)]) for d in DOMAINS}
    gradient = {d: np.abs(np.diff(images[d], axis=2)).mean() for d in DOMAINS}
    tilt = {d: np.abs(poses[d][:, 7, 0] - poses[d][:, [1, 4], 0].mean(axis=1)).mean() for d in DOMAINS}  # thorax above the knees
    assert images["public"].mean() > images["private"].mean() + 20
    assert gradient["private"] > 1.3 * gradient["public"]
    assert tilt["private"] > 1.2 * tilt["public"]


def test_synth_writes_an_unprotected_dataset_with_its_settings(tmp_path: Path) -> None:
    manifest = synth(tmp_path / "d", "private", count=5, seed=3, role="PRIVATE")
    assert (manifest.count, manifest.role, manifest.protected, manifest.name) == (5, "PRIVATE", False, "d")
    assert "seed 3" in manifest.origin
    assert open_shards(tmp_path / "d").content_hashes[4] == draw_record("private", seed=3, index=4).content_hash


def test_unknown_domains_and_empty_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="did you mean private"):
        synth(tmp_path / "d", "privat", count=5, seed=3, role="PRIVATE")
    with pytest.raises(BadInput, match="at least 1"):
        synth(tmp_path / "d", "private", count=0, seed=3, role="PRIVATE")
    assert list(tmp_path.iterdir()) == []


def test_a_synthetic_picture_is_whole(tmp_path: Path) -> None:
    assert synth(tmp_path / "d", "private", count=1, seed=0, role="PRIVATE").crops == "whole_image"


def test_people_are_the_same_whoever_draws_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares go to other processes where there are other cores; the files are bit-identical."""
    monkeypatch.setattr(synthetic, "LEAST_SHARE", 3)
    digests = []
    for cores in (1, 3):
        monkeypatch.setattr(synthetic.os, "cpu_count", lambda cores=cores: cores)
        monkeypatch.setattr(synthetic.os, "process_cpu_count", lambda cores=cores: cores, raising=False)
        made = synth(tmp_path / str(cores) / "people", "private", count=11, seed=5, role="PUBLIC")
        digests.append([entry.sha256 for entry in made.files])
    assert digests[0] == digests[1]


def test_a_share_that_fails_leaves_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "LEAST_SHARE", 3)
    monkeypatch.setattr(synthetic.os, "process_cpu_count", lambda: 2, raising=False)
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(synthetic.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="drawing people 4 to 6 of private failed"):
        synth(tmp_path / "people", "private", count=7, seed=5, role="PUBLIC")
    assert list(tmp_path.iterdir()) == []
