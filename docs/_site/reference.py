"""Reference pages from what the code says: keys of spaces and trials from their JSON schemas, the Python API from its docstrings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dpsweep
from dpcore.config import TrialConfig
from search_spaces.space import SpaceFile

Schema = Mapping[str, Any]

PYTHON = {
    "Sweep": ("load_space", "new_spec", "plan", "run", "resume", "status", "cancel", "SweepOptions", "Plan", "SweepSpec"),
    "Results": ("read_results", "best", "report", "Results", "WrittenReport", "TrialRecord"),
    "Models": ("train", "evaluate", "claim", "predict", "export", "pretrain", "Trained", "Exported", "ModelClaim"),
    "People on pictures": ("PredictedPeople", "PredictedPerson"),
    "Price": ("epsilon", "read_ledger", "Budget", "LedgerReading", "Ledger"),
    "Scores": ("score",),
    "Public weights": ("import_movenet", "import_onnx", "list_weights"),
}
"""The exported names by what one does with them. Errors and names that are not here follow at the end."""

INTRO = {
    "space": (
        "# Every key of a space file\n\nMade from the JSON schema of `search_spaces.space.SpaceFile`. "
        "[Space files](../../search_spaces/README.md) explain how the parts work together. "
        "`trial` holds the [keys of a trial](trial-keys.md)."
    ),
    "trial": (
        "# Every key of a trial\n\nMade from the JSON schema of `dpcore.config.TrialConfig`. They stand under `trial:` of a "
        "[space file](space-keys.md), and in `best.yaml`. `search:` names them by their dotted path, such as `optimizer.learning_rate`."
    ),
    "python": (
        "# Python\n\n`import dpsweep` gives what the [commands](../commands.md) do, as functions with types. The "
        "[notebook guide](../notebook.md) shows a sweep from its plan to its winner."
    ),
}


def pages() -> dict[str, str]:
    """Name below docs/ → Markdown."""
    return {
        "reference/space-keys.md": schema_page(INTRO["space"], SpaceFile.model_json_schema(by_alias=True)),
        "reference/trial-keys.md": schema_page(INTRO["trial"], TrialConfig.model_json_schema(by_alias=True)),
        "reference/python.md": python_page(),
    }


def schema_page(intro: str, schema: Schema) -> str:
    """One table per object of a schema: the whole first, then its parts in the order in which they are named."""
    parts = schema.get("$defs", {})
    tables = [intro, *_table(schema)]
    for name in _in_order(schema, parts):
        if "properties" in parts[name]:
            tables += [f"## {name}", *_described(parts[name]), *_table(parts[name])]
    return "\n\n".join(tables) + "\n"


def _in_order(schema: Schema, parts: Mapping[str, Schema]) -> list[str]:
    found: dict[str, None] = {}
    waiting = [schema]
    while waiting:
        for name in _refs(waiting.pop(0).get("properties", {})):
            if name not in found:
                found[name] = None
                waiting.append(parts[name])
    return list(found)


def _refs(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _refs(value)
    elif isinstance(node, list):
        for value in node:
            yield from _refs(value)


def _described(part: Schema) -> list[str]:
    text = str(part.get("description", "")).strip()
    return [text] if text else []


def _table(part: Schema) -> list[str]:
    needed = part.get("required", ())
    rows = [
        f"| `{key}` | {_cell(type_of(value))} | {'needed' if key in needed else default_of(value)} | {_cell(_about(value))} |"
        for key, value in part.get("properties", {}).items()
    ]
    return ["\n".join(["| key | takes | default | means |", "|---|---|---|---|", *rows])]


def type_of(value: Schema) -> str:
    """What a key takes, in words, with its bounds."""
    if "$ref" in value:
        name = str(value["$ref"]).rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{_plain(one)}`" for one in value.get("enum", [value.get("const")]))
    for several in ("anyOf", "oneOf"):
        if several in value:
            return " or ".join(dict.fromkeys(type_of(one) for one in value[several]))
    if value.get("type") == "array":
        items = value.get("items", value.get("prefixItems", [{}])[0] if value.get("prefixItems") else {})
        return f"list of {type_of(items)}"
    if value.get("type") == "object":
        inner = value.get("additionalProperties")
        return f"mapping to {type_of(inner)}" if isinstance(inner, dict) and inner else "mapping"
    return _with_bounds(value)


def _with_bounds(value: Schema) -> str:
    names = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`", "null": "`null`"}
    said = names.get(str(value.get("type")), "any value")
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return " ".join([said, *([", ".join(bounds)] if bounds else [])])


def default_of(value: Schema) -> str:
    """The default as YAML writes it; a dash where the key is absent by default, or where its own table has the defaults."""
    if "default" not in value or "$ref" in value:
        return "–"
    return f"`{_plain(value['default'])}`" if value["default"] not in ({}, [], ()) else "empty"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if value is None or isinstance(value, bool) else str(value)


def _about(value: Schema) -> str:
    return " ".join(str(value.get("description", "")).split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def python_page() -> str:
    """Every exported name once.

    Raises:
        KeyError: `PYTHON` lists a name that dpsweep does not export.
    """
    listed = [name for names in PYTHON.values() for name in names]
    rest = [name for name in dpsweep.__all__ if name not in listed]
    sections = {**PYTHON, "Errors and others": tuple(rest)}
    lines = [INTRO["python"]]
    for title, names in sections.items():
        lines.append(f"## {title}")
        lines += [f"::: {dpsweep._MODULE_OF[name]}.{name}" for name in names]
    return "\n\n".join(lines) + "\n"
