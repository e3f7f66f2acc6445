"""The published schema of space files is the one that the types give, admits every preset, and finds mistakes."""

import copy
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from dpcore.config import TrialConfig
from search_spaces.fitted import DataFacts, Wishes, fitted_space
from search_spaces.presets import preset_names, preset_path
from search_spaces.schema import MODELINE, SCHEMA_FILE, schema_text, space_schema
from search_spaces.space import SpaceFile


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(preset_path(name).read_text(encoding="utf-8"))
    loaded["search_at"] = {str(key): value for key, value in loaded.get("search_at", {}).items()}
    return loaded


def test_the_published_schema_is_up_to_date() -> None:
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text(), "run `python -m search_spaces.schema`"


@pytest.mark.parametrize("kind", [SpaceFile, TrialConfig])
def test_every_key_of_a_file_says_what_it_means(kind: type[SpaceFile] | type[TrialConfig]) -> None:
    schema = kind.model_json_schema(by_alias=True)
    parts = {"": schema, **schema["$defs"]}
    silent = [
        f"{part}.{key}" for part, one in parts.items() for key, said in one.get("properties", {}).items() if "description" not in said
    ]
    assert silent == []


@pytest.mark.parametrize("name", preset_names())
def test_the_schema_admits_a_preset_which_names_it_in_its_first_line(name: str) -> None:
    jsonschema.validate(document(name), space_schema())
    first = preset_path(name).read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith(MODELINE)
    assert (preset_path(name).parent / first.removeprefix(MODELINE)).resolve() == SCHEMA_FILE.resolve()


def test_the_schema_admits_what_init_writes() -> None:
    facts = DataFacts(
        private="a/train", public="b/train", validation="a/val", height_px=64, width_px=64, skeleton="mpii_16", joints=16,
        protected=True, private_rows=40, private_units=40, public_rows=30, metric="pckh_50",
    )  # fmt: skip
    text = fitted_space(facts, Wishes(nominal_examples=40, epsilons=(2.0,)))
    jsonschema.validate(YAML(typ="safe", pure=True).load(text), space_schema())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sweep", "trails_per_epsilon"), 3),
        (("sweep", "sampler_"), "tpe"),
        (("trial", "stages", "private", "steps"), "many"),
        (("trial", "model", "backbon"), "small"),
        (("search", "clip_norm"), {"floats": [0, 1]}),
    ],
)
def test_the_schema_finds_a_mistake(path: tuple[str, ...], value: object) -> None:
    wrong = copy.deepcopy(document("quick"))
    node = wrong
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, space_schema())
