"""The facts behind a claim."""

from types import SimpleNamespace

import fake_trials
import pytest
import spaces

from dpcore.config import Places, RuntimeFlags
from sweeps.tracking.trial_facts import CatalogFacts


@pytest.mark.parametrize(("secure", "generator"), [(False, "Philox"), (True, "ChaCha20")])
def test_a_claim_names_the_generator_that_the_trial_draws_from(
    secure: bool, generator: str, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = SimpleNamespace(name="p", role="PRIVATE", protected=True)
    monkeypatch.setattr(CatalogFacts, "manifests", lambda self, config: {"private": private})
    config = spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    claim = CatalogFacts(places, RuntimeFlags(secure_rng=secure)).claim(config, fake_trials.plan(config, None))
    assert claim.randomness.startswith(generator)
    assert "floating-point" in claim.paragraph()
