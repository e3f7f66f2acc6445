"""Whose data are read is never drawn: what may be searched is an allow-list over every field of a trial."""

import copy
import json
from collections.abc import Iterator
from typing import get_args

import pytest
import spaces
from pydantic import BaseModel, ValidationError

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from search_spaces.loader import build_space, load_space
from search_spaces.searchable import FIXED, SEARCHABLE, SET_BY_THE_SWEEP, UPRIGHT, foreign_part, why_not_searchable
from search_spaces.space import SpaceFile

WHOSE = ("data", "privacy_unit", "relation", "labels", "examples_per_unit", "teacher", "epsilon", "delta")


def fields_of(kind: type[BaseModel], parent: str = "") -> Iterator[str]:
    """The dotted path of every single field."""
    for name, field in kind.model_fields.items():
        path = f"{parent}.{name}" if parent else name
        nested = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]
        if nested and path != "split":
            yield from fields_of(nested[0], path)
        else:
            yield path


def test_every_searchable_path_is_a_field_and_no_other_is_drawn() -> None:
    every = set(fields_of(TrialConfig))
    assert every > SEARCHABLE
    for path in every - SEARCHABLE:
        assert why_not_searchable(path), path
        assert path.partition(".")[0] in {*FIXED, *SET_BY_THE_SWEEP, "model"}, path


@pytest.mark.parametrize(
    "path", [path for path in fields_of(TrialConfig) if path.partition(".")[0] in WHOSE and path not in UPRIGHT] + ["data", "teacher"]
)
def test_what_says_whose_data_is_refused_in_search_search_at_and_for_the_ceiling(path: str) -> None:
    parameter = {"choice": ["clinic_a", "clinic_b"]}
    search = {**spaces.DOCUMENT["search"], path: parameter}
    with pytest.raises(BadInput, match=rf"^search\.{path}: "):
        spaces.space(search=search)
    with pytest.raises(BadInput, match=rf"search_at\.0\.5\.{path}: "):
        spaces.space(search_at={0.5: {path: parameter}})
    with pytest.raises(BadInput, match=rf"references\.ceiling\.{path}: "):
        spaces.space(references={"ceiling": {path: "clinic_b"}})


def test_a_ceiling_is_not_trained_on_other_people_by_a_nested_setting() -> None:
    with pytest.raises(BadInput, match=r"references\.ceiling\.data\.private: it says whose data are read"):
        spaces.space(references={"ceiling": {"data": {"private": "clinic_b"}}})
    assert spaces.space(references={"ceiling": {"optimizer.learning_rate": 0.037}})


def test_a_field_that_nobody_declared_is_not_searched() -> None:
    assert why_not_searchable("nobodys_field") == "it is not declared as searchable: fix it in trial"
    assert why_not_searchable("optimizer") is not None
    assert "expected one of optimizer.dp_bias_correction, optimizer.drop_at_frac" in str(why_not_searchable("optimizer"))


def test_a_space_from_python_or_from_an_old_spec_is_held_to_the_list_too() -> None:
    document = spaces.space().document()
    document["search"]["data.private"] = {"choice": ["clinic_a", "clinic_b"]}
    with pytest.raises(ValidationError, match=r"search\.data\.private: it says whose data"):
        SpaceFile.model_validate(json.loads(json.dumps(document)))


def test_a_fixed_part_is_a_condition_still() -> None:
    document = copy.deepcopy(spaces.document(trial={"labels": "public"}))
    document["search"]["ema_decay"] = {"choice": [0.91, 0.97], "when": {"labels": "public"}}
    space = build_space(document, name="s")
    assert space.is_active(space.search["ema_decay"], {})


def test_a_config_of_other_people_is_recognised_whatever_its_defaults_are() -> None:
    space = spaces.space()
    config = space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.37})
    assert foreign_part(config, space.trial) is None
    for changes in ({"data.private": "clinic_b"}, {"data.nominal_examples": 1001}, {"privacy_unit": "video"}, {"relation": "replace"}):
        assert foreign_part(config.changed(**changes), space.trial) == next(iter(changes)).partition(".")[0]
    floor = config.changed(method="public_only", epsilon=None, delta=None, clip_norm=None)
    assert foreign_part(floor, {**space.trial, "examples_per_unit": 3}) is None


def test_every_preset_searches_declared_fields_alone() -> None:
    for preset in ("quick", "hybrid", "lspet"):
        assert not list(load_space(preset).undeclared_paths())


@pytest.mark.parametrize(
    ("search", "trial", "message"),
    [
        ({"evaluation.temperature": {"float": [0.1, 1.0]}}, {}, r"evaluation\.temperature: each value has floors and a ceiling of its own"),
        ({"evaluation.flip": {"choice": [True, False], "when": {"method": "dpsgd"}}}, {}, r"evaluation\.flip: leave `when` out"),
        (
            {"model.input_side_px": {"choice": [64, 96]}},
            {"model": {"crop_zoom": 1}},
            r"each size would publish another view",
        ),
        ({"evaluation.view": {"choice": ["a", "b"]}}, {}, r"evaluation\.view: it says what of a picture the network may see"),
    ],
)
def test_what_runs_are_compared_by_is_searched_within_limits(search: dict[str, object], trial: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        spaces.space(search={**spaces.DOCUMENT["search"], **search}, trial=trial)


def test_sizes_are_searched_where_crops_are_resized() -> None:
    search = {"clip_norm": {"float": [0.01, 1.0]}, "model.input_side_px": {"choice": [64, 96]}}
    with pytest.raises(BadInput, match=r"input_side_px: give model\.crop_zoom"):
        spaces.space(search=search, splits={}, trial={"method": "dpsgd"})
    space = spaces.space(search={**search, "model.crop_zoom": {"choice": [1.0, 1.2]}}, splits={}, trial={"method": "dpsgd"})
    assert len(space.alike) == 4
    config = space.trial_config(0.5, {"clip_norm": 0.1, "model.input_side_px": 96, "model.crop_zoom": 1.2})
    assert (config.model.input_height_px, config.model.input_width_px) == (96, 96)
    assert len({config.fingerprint(), config.changed(**{"model.crop_zoom": 1.0}).fingerprint()}) == 2


def test_a_ceiling_is_not_scored_otherwise_than_what_it_is_compared_with() -> None:
    with pytest.raises(BadInput, match=r"references\.ceiling\.evaluation\.flip: a ceiling is scored as the runs"):
        spaces.space(references={"ceiling": {"evaluation.flip": True}})


def test_a_draw_of_an_evaluation_is_the_spaces_own() -> None:
    space = spaces.space(search={**spaces.DOCUMENT["search"], "evaluation.flip": {"choice": [False, True]}})
    config = space.trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.37, "evaluation.flip": True})
    assert foreign_part(config, space.trial) is None
    assert foreign_part(config.changed(**{"data.nominal_examples": 1001}), space.trial) == "data"
