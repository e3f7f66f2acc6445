"""The JSON schema of space files, for the completion of editors. Generated from the types that check a file.
`python -m search_spaces.schema` writes it anew.

A file is judged by the loader alone: it knows more than a schema can say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from dpcore.config import SplitConfig, TrialConfig
from dpcore.durable import replace_file
from search_spaces.space import Choice, FloatRange, IntRange, References, SweepSettings

SCHEMA_FILE = Path(__file__).parent / "space.schema.json"
MODELINE = "# yaml-language-server: $schema="
"""How a YAML file names its schema, in its first line."""
PARTS = (SweepSettings, References, SplitConfig, TrialConfig, Choice, IntRange, FloatRange)


def space_schema() -> dict[str, Any]:
    """The schema of a whole file. Nothing of `trial` is required, as a file may search it or leave it at its default."""
    _, found = models_json_schema([(part, "validation") for part in PARTS], ref_template="#/$defs/{model}", by_alias=True)
    defs = {name: _open(one) if name not in ("SweepSettings", "Choice") else one for name, one in found["$defs"].items()}
    defs["SplitConfig"].pop("required", None)  # its name is the key it stands under
    defs["TrialConfig"]["properties"]["split"] = {"type": ["string", "null"], "description": "the name of a split of `splits`"}
    parameter = {"anyOf": [_ref(one.__name__) for one in (Choice, IntRange, FloatRange)]}
    for kind in (Choice, IntRange, FloatRange):
        defs[kind.__name__]["properties"]["when"] = {"type": "object", "description": "active only where all of these match"}
    searched = {"type": "object", "additionalProperties": parameter}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dpsweep space file",
        "type": "object",
        "additionalProperties": False,
        "required": ["sweep", "trial"],
        "properties": {
            "sweep": _ref("SweepSettings"),
            "references": _ref("References"),
            "splits": {"type": "object", "additionalProperties": _ref("SplitConfig")},
            "trial": _ref("TrialConfig"),
            "search": {**searched, "description": "dotted path of a setting of `trial` → choice, int or float"},
            "search_at": {"type": "object", "additionalProperties": searched, "description": "ε → parameters that differ there"},
            "constraints": {"type": "array", "items": {"type": "string"}},
        },
        "$defs": defs,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _open(model: dict[str, Any]) -> dict[str, Any]:
    """A model of which nothing is required."""
    return {key: value for key, value in model.items() if key != "required"}


def schema_text() -> str:
    """The file's content."""
    return json.dumps(space_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    replace_file(SCHEMA_FILE, schema_text().encode())
