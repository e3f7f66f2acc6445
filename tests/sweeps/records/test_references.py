"""The configs of the runs outside the search."""

import spaces

from sweeps.records.references import free_references


def test_floors_and_ceiling_keep_the_owners_word_on_labels() -> None:
    space = spaces.space(trial={"labels": "private", "teacher": {"steps": 7}})
    configs = [reference.config for reference in free_references(space, seed=0)]
    assert len(configs) == 3
    assert {(config.labels, config.teacher.steps) for config in configs} == {("private", 7)}
    assert {config.split is None for config in configs} == {True, False}
