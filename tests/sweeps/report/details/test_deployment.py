"""The registry's record has the keys of the registry's schema, and the ε of the whole procedure."""

from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import pytest
from report.made_sweep import report_of, results_of, spec_in
from ruamel.yaml import YAML

from dpcore.config import Places
from dpcore.privacy.claim import claim_of
from dpcore.privacy.plan import PrivacyPlan
from sweeps.records.export import render_yaml
from sweeps.report.details.deployment import TODO, deployment_record
from sweeps.report.details.price import SweepPrice
from sweeps.report.details.statement import WinnerClaim

SCHEMA = YAML(typ="safe", pure=True).load(Path(__file__).with_name("deployments-schema.yaml").read_text(encoding="utf-8"))


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


def test_the_registrys_schema_takes_the_record_but_for_the_date_that_the_curator_fills_in(made: tuple[WinnerClaim, SweepPrice]) -> None:
    record = YAML(typ="safe", pure=True).load(render_yaml(deployment_record("made", *made)))
    checker = jsonschema.Draft7Validator(SCHEMA, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
    assert [".".join(map(str, one.path)) for one in checker.iter_errors(record)] == ["deployment.basic.publication_date"]
    record["deployment"]["basic"]["publication_date"] = "2026-07-15"
    checker.validate(record)
    with pytest.raises(jsonschema.ValidationError):
        checker.validate({**record, "deployment": {**record["deployment"], "dp_flavor": {}}})


def test_every_field_of_the_schema_is_filled_or_left_to_the_curator(made: tuple[WinnerClaim, SweepPrice]) -> None:
    deployment = deployment_record("made", *made)["deployment"]
    parts = SCHEMA["properties"]["deployment"]["properties"]
    missing = {f"{part}.{key}" for part, one in parts.items() for key in one["properties"] if key not in deployment[part]}
    details = {"model_name_details", "data_source_type_details", "access_type_details"}
    assert missing == {"basic.data_product_sector", "administrative.sources", *(f"deployment_model.{one}" for one in details)}
    assert [name for name, value in deployment["basic"].items() if TODO in str(value)] == [
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
