"""Trials outside a sweep, handed out with the plan that a driver would have reserved for them."""

from typing import Any

from dpcore.config import TrialConfig
from dpcore.privacy.accounting import plan_privacy
from dpcore.train.handout import Handout


def handed(config: TrialConfig, **given: Any) -> Handout:
    """A handout of the trial; `given` are its other fields."""
    return Handout(plan=plan_privacy(config.without_proxy(), given["places"].cache_dir), **given)
