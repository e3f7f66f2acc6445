"""What makes two runs one."""

from collections.abc import Callable
from typing import Any

import pytest

from dpcore.config import RuntimeFlags, TrialConfig
from dpcore.train.replay import replay_fingerprint

Make = Callable[..., TrialConfig]
DATA = {"private": "a", "public": "b", "validation": "c"}


def test_reporting_more_often_is_still_the_same_run(make_config: Make) -> None:
    plain, chatty = RuntimeFlags(), RuntimeFlags(report_every_steps=1, checkpoint_every_steps=1)
    assert replay_fingerprint(make_config(), plain, DATA) == replay_fingerprint(make_config(), chatty, DATA)


@pytest.mark.parametrize("change", [{"threads": 2}, {"physical_batch_size": 8}, {"secure_rng": True}, {"device": "cuda"}])
def test_rounding_and_generator_make_another_run(make_config: Make, change: dict[str, Any]) -> None:
    plain, changed = RuntimeFlags(), RuntimeFlags(**change)
    assert replay_fingerprint(make_config(), plain, DATA) != replay_fingerprint(make_config(), changed, DATA)


def test_config_and_each_dataset_make_another_run(make_config: Make) -> None:
    known = {replay_fingerprint(make_config(), RuntimeFlags(), DATA), replay_fingerprint(make_config(seed=1), RuntimeFlags(), DATA)}
    known |= {replay_fingerprint(make_config(), RuntimeFlags(), {**DATA, name: "other"}) for name in DATA}
    assert len(known) == 5
