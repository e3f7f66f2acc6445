"""What a sweep is said to cost before it runs."""

from typing import Any

from fake_trials import compose, spent
from spaces import space

from dpcore.config import TrialConfig
from dpcore.privacy.plan import PrivacyPlan
from sweeps.pricing.plan import Accountant, plan_sweep


def test_a_plan_is_priced_under_the_relation_of_its_trials() -> None:
    seen: list[TrialConfig] = []

    def plan(config: TrialConfig, cache_dir: Any) -> PrivacyPlan:
        seen.append(config)
        return PrivacyPlan(
            sampling_prob=0.01, steps=3, noise_multiplier=2.0, delta=1e-5, epsilon_target=1.0, epsilon_planned=1.0, relation=config.relation
        )

    planned = plan_sweep(space(trial={"relation": "replace"}), Accountant(plan=plan, compose=compose, spent=spent))
    assert {config.relation for config in seen} == {"replace"}
    assert {group.spending.relation for group in planned.groups if group.spending is not None} == {"replace"}
    assert len(planned.groups) == 2
