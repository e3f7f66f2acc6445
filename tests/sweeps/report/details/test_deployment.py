"""The registry's record has the keys of the registry's schema, and the ε of the whole procedure."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from report.made_sweep import report_of, results_of, spec_in

from dpcore.config import Places
from dpcore.privacy.claim import claim_of
from dpcore.privacy.plan import PrivacyPlan
from sweeps.report.details.deployment import TODO, deployment_record
from sweeps.report.details.price import SweepPrice
from sweeps.report.details.statement import WinnerClaim

KEYS = {
    "basic": {
        "name",
        "data_curators",
        "intended_use",
        "data_product_type",
        "data_product_region",
        "description",
        "publication_date",
        "data_product_sector",
    },
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {"privacy_unit", "privacy_unit_details", "privacy_parameters", "privacy_parameters_details"},
    "deployment_model": {
        "model_name",
        "model_name_details",
        "actors",
        "release_type",
        "release_type_details",
        "data_source_type",
        "data_source_type_details",
        "access_type",
        "access_type_details",
    },
    "accounting": {"post_processing", "composition"},
    "implementation": {"preprocessing_and_hyperparameter_tuning", "mechanisms", "justification"},
    "administrative": {"sources", "notes", "registry_authors"},
}
"""Part → keys that the schema of July 2026 takes; it refuses others."""


@dataclass(frozen=True)
class Named:
    name: str
    role: str
    protected: bool = True


@pytest.fixture
def made(tmp_path: Path, places: Places) -> tuple[WinnerClaim, SweepPrice]:
    spec = spec_in(tmp_path, places)
    report = report_of(results_of(spec, protected=True), spec)
    config = next(one.winner.config for one in report.comparisons if one.winner is not None)
    plan = PrivacyPlan(
        sampling_prob=0.064,
        steps=60,
        noise_multiplier=2.5639,
        delta=1e-5,
        epsilon_target=0.8,
        epsilon_planned=0.7997,
        relation="add_remove",
    )
    manifests = {name: Named(name, "PRIVATE" if name == "private" else "PUBLIC") for name in ("private", "public", "validation")}
    return WinnerClaim(epsilon=0.8, trial_id="e0.8-003", claim=claim_of(config, plan, manifests)), report.price


def test_the_record_has_the_keys_of_the_schema_and_says_what_the_curator_must(made: tuple[WinnerClaim, SweepPrice]) -> None:
    record = deployment_record("made", *made)
    assert record.keys() == {"url_slug", "status", "tier", "deployment"}
    parts: dict[str, dict[str, Any]] = record["deployment"]
    assert {name: set(part) - KEYS[name] for name, part in parts.items()} == {name: set() for name in KEYS}
    assert [name for name, value in parts["basic"].items() if TODO in str(value)] == [
        "data_curators",
        "intended_use",
        "data_product_region",
        "publication_date",
    ]


def test_its_epsilon_is_that_of_the_model_with_the_choice_of_its_settings(made: tuple[WinnerClaim, SweepPrice]) -> None:
    loss = deployment_record("made", *made)["deployment"]["privacy_loss"]
    assert loss["privacy_parameters"] == {"epsilon": 4.372, "delta": 1e-5}
    assert "the model by itself: ε = 0.7997" in loss["privacy_parameters_details"]
    assert "the views of every image under blur_3" in loss["privacy_unit_details"]


def test_without_a_promise_it_has_no_epsilon(made: tuple[WinnerClaim, SweepPrice]) -> None:
    claim, price = made
    unpaid = replace(price, basis=replace(price.basis, accounting="unaccounted"))
    loss = deployment_record("made", claim, unpaid)["deployment"]["privacy_loss"]
    assert "privacy_parameters" not in loss
    assert "no end-to-end guarantee" in loss["privacy_parameters_details"]
