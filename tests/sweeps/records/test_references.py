"""The configs of the runs outside the search."""

import spaces

from dpcore.config import TrialConfig
from sweeps.records.references import compared_alike, control_config, free_references
from sweeps.records.results import TrialRecord


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


def test_each_searched_evaluation_has_floors_and_a_ceiling_of_its_own() -> None:
    turns = {"choice": ["0", "0,90,180,270"]}
    search = {**spaces.DOCUMENT["search"], "evaluation.fuse": {"choice": ["mean", "maps"]}, "evaluation.rotations_deg": turns}
    found = {one.trial_id: one for one in free_references(spaces.space(search=search), seed=0)}
    assert len(found) == 3 * 4
    assert list(found)[:2] == ["public-start-fuse_mean-rotations_deg_0", "public-start-fuse_mean-rotations_deg_0_90_180_270"]
    assert "floor-blur-fuse_maps-rotations_deg_0_90_180_270" in found
    for role in ("floor", "ceiling"):
        asked = [(one.config.evaluation.fuse, one.config.evaluation.views, one.config.start) for one in found.values() if one.role == role]
        assert len(set(asked)) == len(asked) == (8 if role == "floor" else 4)
    sealed = spaces.space(search=search, references={"ceiling": "non_private"})
    assert "ceiling" in {one.trial_id for one in free_references(sealed, seed=0)}


def test_each_searched_size_has_a_floor_of_its_own() -> None:
    search = {"clip_norm": {"float": [0.01, 1.0]}, "model.input_side_px": {"choice": [64, 96]}}
    space = spaces.space(search=search, splits={}, trial={"method": "dpsgd", "model": {"crop_zoom": 1.0}})
    found = {one.trial_id: one.config for one in free_references(space, seed=0)}
    assert {name: config.model.input_width_px for name, config in found.items()} == {
        "public-start-input_side_px_64": 64,
        "public-start-input_side_px_96": 96,
        "ceiling-input_side_px_64": 64,
        "ceiling-input_side_px_96": 96,
    }


def test_a_control_is_scored_as_the_winner_is() -> None:
    search = {**spaces.DOCUMENT["search"], "evaluation.flip": {"choice": [False, True]}}
    space = spaces.space(search=search)
    draws = {"dpsgd": {}, "feature": {"split": "blur", "public_weight": 0.7}}
    runs = {
        method: TrialRecord(
            trial_id=f"e0.5-{number:03d}",
            role="search",
            number=number,
            config=space.trial_config(0.5, {"method": method, "clip_norm": 0.3, "evaluation.flip": method == "dpsgd", **more}),
        )
        for number, (method, more) in enumerate(draws.items())
    }
    control = control_config(runs["feature"], runs["dpsgd"])
    assert control.is_control
    assert compared_alike(control, runs["dpsgd"].config)
    assert not compared_alike(runs["feature"].config, runs["dpsgd"].config)
