"""The configs of the runs outside the search."""

import spaces

from dpcore.config import TrialConfig
from sweeps.records.references import free_references


def test_floors_and_ceiling_keep_the_owners_word_on_labels() -> None:
    space = spaces.space(trial={"labels": "private", "teacher": {"steps": 7}})
    configs = [reference.config for reference in free_references(space, seed=0)]
    assert len(configs) == 3
    assert {(config.labels, config.teacher.steps) for config in configs} == {("private", 7)}
    assert {config.split is None for config in configs} == {True, False}


def references_of(**references: object) -> dict[str, TrialConfig]:
    search = {**spaces.DOCUMENT["search"], "model.freeze": {"choice": ["none", "backbone"]}}
    space = spaces.space(search=search, references=references)
    return {reference.trial_id: reference.config for reference in free_references(space, seed=0)}


def test_each_searched_strategy_has_a_floor_and_a_ceiling_of_its_own() -> None:
    found = references_of()
    assert list(found) == ["public-start", "floor-blur-none", "floor-blur-backbone", "ceiling-none", "ceiling-backbone"]
    assert [config.model.freeze for config in found.values()] == ["none", "none", "backbone", "none", "backbone"]


def test_a_ceiling_that_says_what_it_trains_is_one() -> None:
    found = references_of(ceiling={"model.freeze": "early"})
    assert found["ceiling"].model.freeze == "early"
    assert "ceiling-none" not in found
    assert "ceiling" in references_of(ceiling="non_private")
