"""The table of what the privacy promise rests on names tests that exist, each rule once."""

import ast
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
RULES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).with_name("contract.yaml"))


def names_in(path: Path) -> set[str]:
    """The names of a file's tests, without importing it."""
    return {
        node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_rule_has_an_area_and_tests_of_its_own() -> None:
    assert all(set(rule) == {"area", "rule", "tests"} and rule["tests"] for rule in RULES)
    texts = [rule["rule"] for rule in RULES]
    assert len(set(texts)) == len(texts)
    assert [rule["rule"] for rule in RULES if len(set(rule["tests"])) < len(rule["tests"])] == []


def test_every_test_that_a_rule_names_exists() -> None:
    named = sorted({test for rule in RULES for test in rule["tests"]})
    places = {name.partition("::")[0] for name in named}
    there = {f"{place}::{test}" for place in places if (ROOT / place).is_file() for test in names_in(ROOT / place)}
    assert [name for name in named if name not in there] == []
