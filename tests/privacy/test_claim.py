"""A claim says what was promised, under the weakest relation that went in, and never a number where there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from dpcore.config import SplitConfig, TrialConfig, parse_config
from dpcore.errors import BadInput
from dpcore.privacy.claim import PrivacyClaim, claim_of
from dpcore.privacy.disclosure import Disclosure, Reading
from dpcore.privacy.plan import PrivacyPlan

PLAN = PrivacyPlan(sampling_prob=0.06, steps=40, noise_multiplier=2.1, delta=1e-4, epsilon_target=0.8, epsilon_planned=0.7999)
SPLIT = {"name": "blur_10", "transform": "gaussian_blur", "sigma_px": 10}


@dataclass(frozen=True)
class Facts:
    name: str
    role: str
    protected: bool = False


def claim(method: str, plan: PrivacyPlan | None, *, protected: bool = True, **changes: Any) -> PrivacyClaim:
    values: dict[str, Any] = {
        "method": method,
        "data": {"private": "clinic", "public": "coco", "validation": "val", "nominal_examples": 1000},
        "stages": {"private": {"steps": 40, "expected_batch_size": 60}, "public_view": {"steps": 5}},
    }
    if plan is not None:
        values |= {"epsilon": 0.8, "delta": 1e-4, "clip_norm": 1.0}
    manifests = {"private": Facts("clinic", "PRIVATE", protected), "public": Facts("coco", "PUBLIC"), "validation": Facts("val", "PUBLIC")}
    return claim_of(parse_config(TrialConfig, values | changes), plan, manifests)


def test_plain_dp_sgd_protects_the_whole_record() -> None:
    made = claim("dpsgd", PLAN)
    assert made.relation == "add_remove_record"
    assert (made.epsilon, made.delta) == (0.7999, 1e-4)
    text = made.paragraph()
    for said in (
        "ε = 0.7999",
        "δ = 0.0001",
        "one image with its labels",
        "added or removed",
        "probability 0.06",
        "40 releases",
        "Philox",
        "PLD",
    ):
        assert said in text
    assert "ψ" not in text
    assert "Stand-in" not in text


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "feature", "split": SPLIT},
        {"method": "dpsgd", "split": SPLIT, "start": "public_view"},
        {"method": "feature_projected", "split": SPLIT, "subspace": {"rank": 4, "examples": 8, "source": "public_view"}},
    ],
)
def test_anything_that_read_public_views_makes_it_a_feature_claim(changes: dict[str, Any]) -> None:
    made = claim(changes.pop("method"), PLAN, **changes)
    assert made.relation == "add_remove_given_public_view"
    text = made.paragraph()
    for said in ("private part of one image", "blur_10", "labels: public", "which images exist", "what ψ itself shows"):
        assert said in text


def test_a_control_read_nothing_private() -> None:
    made = claim("feature", None, split=SPLIT, private_weight=0.0)
    assert made.epsilon == 0.0
    assert "Nothing about the private part of one image was read" in made.paragraph()
    assert "nothing private" in made.headline()


def test_no_guarantee_is_never_a_number() -> None:
    made = claim("nonprivate", None, protected=False)
    assert made.epsilon is None
    assert made.delta is None
    assert made.paragraph().startswith("No privacy guarantee: method nonprivate")
    assert made.headline() == "no guarantee"


def test_stand_in_data_says_so() -> None:
    assert claim("dpsgd", PLAN, protected=False).paragraph().endswith("Stand-in data: ε as it would be.")
    assert claim("nonprivate", None, protected=False).paragraph().endswith("Stand-in data: ε as it would be.")


def test_public_validation_is_listed() -> None:
    made = claim("dpsgd", PLAN)
    assert "dataset coco (public)" in made.public
    assert any("val" in line and "declared public" in line for line in made.not_covered)


def test_initial_weights_are_listed_as_public() -> None:
    folded = {"backbone": "folded", "weights": "models/net", "feature_layers": ["top"], "freeze": "backbone"}
    assert "the initial weights models/net" in claim("dpsgd", PLAN, model=folded).public
    assert not any("initial weights" in line for line in claim("dpsgd", PLAN).public)


def test_a_claim_survives_json() -> None:
    made = claim("feature", PLAN, split=SPLIT)
    assert PrivacyClaim.model_validate_json(made.model_dump_json()) == made


def test_plan_and_config_must_agree() -> None:
    values = {
        "method": "nonprivate",
        "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 10},
        "stages": {"private": {"steps": 1, "expected_batch_size": 1}},
    }
    config = parse_config(TrialConfig, values)
    with pytest.raises(BadInput, match="has no privacy plan"):
        claim_of(config, PLAN, {"private": Facts("a", "PRIVATE")})
    with pytest.raises(BadInput, match=r"manifests\['private'\]"):
        claim_of(config, None, {})


def test_a_replacement_claim_says_so_and_how_it_was_priced() -> None:
    plan = replace(PLAN, relation="replace")
    made = claim("dpsgd", plan, relation="replace")
    assert made.relation == "replace_record"
    assert "one image with its labels, replaced by another." in made.paragraph()
    assert "PLD (dp-accounting, replacement" in made.paragraph()
    assert "replace record" in made.headline()
    assert claim("feature", plan, split=SPLIT, relation="replace").relation == "replace_given_public_view"
    with pytest.raises(BadInput, match="priced for relation add_remove"):
        claim("dpsgd", PLAN, relation="replace")


def test_private_labels_leave_the_public_list_and_join_the_private_part() -> None:
    made = claim("feature", PLAN, split=SPLIT, labels="private")
    assert made.labels == "private"
    text = made.paragraph()
    for said in ("the private part of one image and its labels, added or removed", "a public model of coco", "pseudo-labels stood in"):
        assert said in text
    assert not any("head size" in line or "labels: public" in line for line in made.public)
    assert any("labels: public" in line for line in made.not_covered)
    assert "one image with its labels" in claim("dpsgd", PLAN, labels="private").paragraph()
    assert claim("feature", PLAN, split=SPLIT).labels == "public"
    assert claim("dpsgd", PLAN).labels == "private"
    assert "and its labels" not in claim("feature", PLAN, split=SPLIT).paragraph()


def test_a_control_with_private_labels_read_neither_pixels_nor_labels() -> None:
    made = claim("feature", None, split=SPLIT, private_weight=0.0, labels="private")
    assert "Nothing about the private part of one image and its labels was read" in made.paragraph()


@pytest.mark.parametrize(
    ("unit", "said", "not_covered"),
    [
        ("person", "one annotated person with its labels", "the pixels of that person in a neighbour's crop"),
        ("image", "one image with its labels", "what the same person shows in other images"),
        ("video", "one video with its labels", "what the same person shows in other videos"),
    ],
)
def test_a_claim_is_about_its_unit_and_says_the_cap(unit: str, said: str, not_covered: str) -> None:
    made = claim("dpsgd", PLAN, privacy_unit=unit, examples_per_unit=4)
    assert (made.unit, made.examples_per_unit) == (unit, 4)
    assert said in made.paragraph()
    assert "at most 4 crops take part" in made.paragraph()
    assert not_covered in made.not_covered
    assert ("a neighbour's crop" in " ".join(made.not_covered)) == (unit == "person")
    assert f"per {unit}" in made.headline()


def disclosure(pckh: float, *names: str) -> Disclosure:
    reading = Reading(attacker="learned", pckh_50=pckh, psnr_db=20.0, ssim=0.5, hidden_psnr_db=20.0, hidden_ssim=0.5)
    counts: dict[str, Any] = {"hidden_frac": 1.0, "trained_on": 9, "tested_on": 9, "datasets": ("coco",)}
    return Disclosure(splits=names, pckh_original=0.6, pckh_blind=0.2, readings=(reading,), **counts)


POLICY = (SplitConfig(**SPLIT), SplitConfig(name="head_8", transform="pixelate", cell_px=8, region="head"))


def test_a_feature_claim_lists_every_split_that_an_attacker_may_hold_views_of() -> None:
    made = claim("feature", PLAN, split=SPLIT).with_views(POLICY, disclosure(0.3, "blur_10"), disclosure(0.58, "blur_10", "head_8"))
    text = made.paragraph()
    assert text.count("split blur_10 (gaussian_blur on region all)") == 1
    assert "split head_8 (pixelate on region head)" in text
    assert "views of other splits" not in text
    assert "read off them to 95 %" in text
    assert "Warning: the public view nearly shows the image" in text
    assert made.views is not None
    assert (made.views.disclosure, made.views.joint_disclosure) == (pytest.approx(0.25), pytest.approx(0.95))
    assert PrivacyClaim.model_validate_json(made.model_dump_json()) == made


def test_a_claim_says_where_nothing_was_measured_and_where_the_policy_is_not_known() -> None:
    alone = claim("feature", PLAN, split=SPLIT)
    assert "what the views of other splits show in addition" in alone.paragraph()
    text = alone.with_views(POLICY[:1], None, None).paragraph()
    assert "was not measured" in text
    assert "Warning" not in text
