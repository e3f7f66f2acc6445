"""A machine-readable record of each winner for the Differential Privacy Deployments Registry.

The schema is that of the registry (opendp/deployments-registry-data, `deployments-schema.yaml` of 15 July 2026), which follows
Nanayakkara, Ghazi and Vadhan 2025, arXiv:2509.13509. A test holds records against a copy of it. A record is a draft: what only the curator
knows holds `TODO`, so that its date is the one thing that the schema refuses.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from sweeps.records.trial_id import epsilon_name

if TYPE_CHECKING:
    from sweeps.report.details.price import SweepPrice
    from sweeps.report.details.statement import WinnerClaim

TODO = "TODO"
UNIT_LEVEL = {"person": "annotation-level (one annotated person in one image)", "image": "image-level", "video": "video-level"}


def deployment_record(sweep: str, one: WinnerClaim, price: SweepPrice) -> dict[str, Any]:
    """The record of the model that won at one ε, with the keys of the registry's schema."""
    claim = one.claim
    return {
        "url_slug": f"{TODO}-{sweep}-eps-{epsilon_name(one.epsilon)}".replace(".", "-").replace("_", "-").lower(),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": {
                "name": f"2-D pose network of sweep {sweep}, ε target {one.epsilon:g}",
                "data_curators": [TODO],
                "intended_use": TODO,
                "data_product_type": "Machine learning model",
                "data_product_region": TODO,
                "description": "A network that finds the joints of people in pictures, trained with differential privacy."
                + (" Trained on a stand-in for protected data." if claim.stand_in else ""),
                "publication_date": TODO,
            },
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": f"datasets of labelled pictures, made of units: one {claim.unit} each",
                "unprotected_quantities": "; ".join(claim.public) or "none",
            },
            "privacy_loss": {
                "privacy_unit": UNIT_LEVEL[claim.unit],
                "privacy_unit_details": f"neighbouring datasets, and what is public: {_neighbours(one, price)}; at most "
                f"{claim.examples_per_unit} example(s) of a unit take part in a step",
                **_parameters(one, price),
            },
            "deployment_model": _MODEL,
            "accounting": {
                "post_processing": "optimiser, averaging of weights, projection with public bases; keypoints that the model predicts",
                "composition": f"{claim.accountant}; {price.pricing.accountants(price.basis)}",
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": ". ".join(price.lines()),
                "mechanisms": " ".join(part for part in (claim.mechanism, claim.sampling, f"Randomness: {claim.randomness}.") if part)
                + f" Implemented by dpsweep {version('dpsweep')} on PyTorch; clipped sums and noise are float64. "
                "Raw pictures and what was made from them are files of mode 0600 and 0700 "
                f"of the account that trains. Not covered: {'; '.join(claim.not_covered)}.",
                "justification": TODO,
            },
            "administrative": {"registry_authors": [TODO], "notes": claim.paragraph()},
        },
    }


_MODEL = {
    "model_name": "Central",
    "actors": "The curator trains and sees the raw pictures. Everybody else sees the released model and the scores, and is not trusted.",
    "release_type": "One release",
    "release_type_details": f"{TODO}: plans for further trainings on the same data. dpsweep charges each to the same ledger beforehand.",
    "data_source_type": "Static",
    "access_type": "Non-interactive",
}


def _neighbours(one: WinnerClaim, price: SweepPrice) -> str:
    """To whom the record's ε is a promise: with the choice of settings in it, to whom the price of the sweep is one."""
    promise = price.basis.promise
    if promise is None or not price.regime.reads_private:
        return f"per {one.claim.unit}, {one.claim.relation.replace('_', ' ')}"
    return promise.text()


def _parameters(one: WinnerClaim, price: SweepPrice) -> dict[str, Any]:
    """ε and δ of the model together with the choice of its settings, where that is a promise."""
    alone = f"the model by itself: {one.claim.headline()}"
    if not price.regime.is_promise:
        return {"privacy_parameters_details": f"{price.pricing.warning}; {alone}"}
    if not price.regime.reads_private:
        details = "of the final training on the private data; choosing the settings read PUBLIC data alone"
        return {"privacy_parameters": {"epsilon": one.epsilon, "delta": price.delta}, "privacy_parameters_details": details}
    return {
        "privacy_parameters": {"epsilon": price.composed_epsilon, "delta": price.delta},
        "privacy_parameters_details": f"of the model together with the choice of its settings; {alone}",
    }
