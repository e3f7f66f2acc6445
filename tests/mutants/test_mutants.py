"""Every mutant is a fault that somebody made: each must be noticed by the test that it names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mutant_kit import ROOT, Mutant, applies, load_mutants, run_all, survivors_without_a_patch

MUTANTS = load_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.path.stem)
def test_each_patch_fits_the_sources(mutant: Mutant) -> None:
    assert applies(mutant) == ""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.path.stem)
def test_each_patch_changes_sources_alone_and_names_tests_that_exist(mutant: Mutant) -> None:
    touched = [line.removeprefix("+++ b/") for line in mutant.path.read_text().splitlines() if line.startswith("+++ b/")]
    assert touched
    assert all(path.startswith(("dpcore/", "sweeps/", "search_spaces/")) for path in touched)
    for detector in mutant.detectors:
        path, _, test = detector.partition("::")
        names = {node.name for node in ast.walk(ast.parse((ROOT / Path(path)).read_text())) if isinstance(node, ast.FunctionDef)}
        assert test.partition("[")[0] in names


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_mutant_dies_and_its_detectors_pass_without_it() -> None:
    assert survivors_without_a_patch(MUTANTS) == ""
    assert [verdict.mutant.name for verdict in run_all(MUTANTS) if not verdict.died] == []
