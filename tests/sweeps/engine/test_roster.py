"""What a roster counts as records come is what counting them anew would give."""

import random
from dataclasses import replace

from dpcore.config import TrialConfig
from sweeps.engine.roster import Roster
from sweeps.records.results import CurvePoint, TrialRecord, best_of

CONFIG = TrialConfig.model_validate(
    {
        "method": "dpsgd",
        "epsilon": 0.8,
        "delta": 1e-5,
        "clip_norm": 1.0,
        "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 100},
        "stages": {"private": {"steps": 2, "expected_batch_size": 10}},
    }
)
ROLES = ("search", "floor", "seed")


def planned(number: int, generator: random.Random) -> TrialRecord:
    epsilon = generator.choice((0.8, 8.0))
    return TrialRecord(trial_id=f"t{number}", role=generator.choice(ROLES), number=number, epsilon=epsilon, config=CONFIG)


def step(record: TrialRecord, generator: random.Random) -> TrialRecord:
    if generator.random() < 0.3:
        return record.ended(seconds=1.0, error="broke")
    score = generator.choice((0.4, 0.5, 0.6))
    return record.with_point(CurvePoint(2, {"val/pckh_50": score})).ended(seconds=1.0)


def test_random_histories_are_counted_as_if_from_the_start() -> None:
    for seed in range(20):
        generator, roster, aside = random.Random(seed), Roster(), set()
        for number in range(60):
            roster.put(planned(number, generator))
            record = roster[f"t{generator.randrange(number + 1)}"]
            if not record.is_finished:
                roster.put(step(record, generator))
            elif record.state == "failed" and record.trial_id not in aside and generator.random() < 0.5:
                roster.set_aside(record.trial_id)
                aside.add(record.trial_id)
            counted = [one for one in roster if one.trial_id not in aside]
            assert roster.finished == sum(one.is_finished for one in counted)
            for epsilon in (0.8, 8.0):
                searched = [one for one in counted if one.role == "search" and one.epsilon == epsilon]
                assert roster.counted("search", epsilon) == len(searched)
                assert roster.all_ended(epsilon) == all(one.is_finished for one in searched)
                assert roster.best(epsilon) == best_of(searched)
                assert roster.drawn(epsilon) == sum(one.role == "search" and one.epsilon == epsilon for one in roster)
        assert len(roster) == 60


def test_the_earlier_of_equal_scores_wins_whichever_ends_first() -> None:
    roster = Roster()
    records = [TrialRecord(trial_id=f"t{n}", role="search", number=n, epsilon=0.8, config=CONFIG) for n in range(2)]
    for record in records:
        roster.put(record)
    point = CurvePoint(2, {"val/pckh_50": 0.5})
    roster.put(records[1].with_point(point).ended(seconds=1.0))
    assert roster.best(0.8) == roster["t1"]
    roster.put(records[0].with_point(point).ended(seconds=1.0))
    assert roster.best(0.8) == roster["t0"]


def test_a_control_is_made_of_feature_trials_alone() -> None:
    roster = Roster()
    feature = CONFIG.changed(
        **{"method": "feature", "public_weight": 0.5, "split": {"name": "b", "transform": "gaussian_blur", "sigma_px": 4}}
    )
    plain = TrialRecord(trial_id="t0", role="search", number=0, epsilon=0.8, config=CONFIG)
    for record, score in ((plain, 0.9), (replace(plain, trial_id="t1", config=feature), 0.5)):
        roster.put(record.with_point(CurvePoint(2, {"val/pckh_50": score})).ended(seconds=1.0))
    assert roster.best(0.8, feature_only=True) == roster["t1"]
    assert roster.best(0.8) == roster["t0"]
