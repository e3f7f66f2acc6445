"""A rehearsal on a PUBLIC proxy: the private run's noise relative to its batch, no spending, no claim on private data."""

from types import SimpleNamespace

import pytest

from dpcore.config import TrialConfig, parse_config
from dpcore.errors import BadInput
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.claim import claim_of
from dpcore.privacy.rehearsal import StepTerms, check_proxy_size, step_terms


def trial(proxy_examples: int | None, **changes: object) -> TrialConfig:
    proxy = {} if proxy_examples is None else {"proxy": "p", "proxy_examples": proxy_examples}
    values = {
        "method": "dpsgd",
        "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 1000, **proxy},
        "stages": {"private": {"steps": 40, "expected_batch_size": 60}},
        "epsilon": 0.8,
        "delta": 1e-4,
        "clip_norm": 1.0,
    }
    return parse_config(TrialConfig, values | changes)


def terms_of(config: TrialConfig) -> StepTerms:
    """The terms under the plan of the private run."""
    return step_terms(config, plan_privacy(config.without_proxy()))


@pytest.mark.parametrize(("count", "batch", "sampling_prob"), [(1000, 60, 0.06), (240, 60, 0.25), (60, 60, 1.0), (20, 20, 1.0)])
def test_the_noise_relative_to_the_batch_is_that_of_the_private_run(count: int, batch: int, sampling_prob: float) -> None:
    private, terms = terms_of(trial(None)), terms_of(trial(count))
    running = terms.config.stages.private.expected_batch_size
    assert (running, terms.config.sampling_prob) == (batch, sampling_prob)
    assert terms.noise_multiplier / running == pytest.approx(private.noise_multiplier / 60, rel=1e-12)
    assert terms.config.stages.private.steps == 40


def test_a_rehearsal_spends_nothing_and_its_private_run_does() -> None:
    config = trial(240)
    assert (config.spends_privacy, config.adds_noise, plan_privacy(config)) == (False, True, None)
    assert config.without_proxy() == trial(None)
    assert plan_privacy(config.without_proxy()).noise_multiplier == terms_of(trial(None)).noise_multiplier


def test_methods_without_noise_stay_without_it() -> None:
    plain = {"method": "nonprivate", "epsilon": None, "delta": None, "clip_norm": None}
    assert terms_of(trial(240, **plain)).noise_multiplier is None


def test_the_claim_of_a_rehearsal_says_that_nothing_private_was_read() -> None:
    facts = {part: SimpleNamespace(name=part, role="PUBLIC", protected=False) for part in ("proxy", "public", "validation")}
    claim = claim_of(trial(240), None, facts)
    assert (claim.epsilon, claim.stand_in) == (0.0, False)
    assert "dataset p stood in the place of a" in claim.paragraph()
    assert "ε = 0" in claim.paragraph()
    with pytest.raises(BadInput, match=r"manifests\['proxy'\]"):
        claim_of(trial(240), None, {"private": facts["public"]})


def test_a_proxy_needs_its_size_and_the_right_one() -> None:
    with pytest.raises(BadInput, match="belong together"):
        trial(None, data={"private": "a", "public": "b", "validation": "c", "nominal_examples": 1000, "proxy": "p"})
    check_proxy_size(trial(240), 240)
    check_proxy_size(trial(None), 7)
    with pytest.raises(BadInput, match="240, p has 239 privacy units"):
        check_proxy_size(trial(240), 239)
