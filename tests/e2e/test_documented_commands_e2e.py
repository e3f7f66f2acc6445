"""What README and docs print is run as it is printed, in the order of its page, in a folder of its own, after a small sweep."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from documented import NOT_RUN, ROOT, all_commands, commands_of, python_blocks
from PIL import Image

from dpcore.data.synthetic import draw_record
from dpcore.pose.skeleton import MPII_16

SMALLER = {
    "data.private": "tiny/private",
    "data.public": "tiny/public",
    "data.validation": "tiny/validation",
    "data.nominal_examples": 200,
    "stages.private": {"steps": 6, "expected_batch_size": 40},
    "stages.public": {"steps": 20, "batch_size": 16},
    "stages.public_view": {"steps": 5, "batch_size": 16},
    "teacher": {"steps": 5, "batch_size": 16},
    "subspace.examples": 32,
    "subspace.rank": 8,
    "references": {"floor": False, "ceiling": False, "control": False, "winner_seeds": 0, "disclosure": False},
    "sweep.delta": 1.0e-3,
}
"""What makes the preset quick take seconds. Its ε, methods and split stay."""
PEOPLE = {"private": ("private", 200, "PRIVATE"), "public": ("public", 100, "PUBLIC"), "validation": ("private", 40, "PUBLIC")}
MINE = """
sweep: {epsilons: [8], delta: 1.0e-3, trials_per_epsilon: 1, sampler: random, accounting: composed}
references: {floor: false, ceiling: false, control: false, winner_seeds: 0}
trial:
  method: dpsgd
  data: {private: tiny/private, public: tiny/public, validation: tiny/validation, nominal_examples: 200}
  stages: {private: {steps: 4, expected_batch_size: 40}}
search: {clip_norm: {float: [0.1, 1.0], log: true}}
"""
"""Somebody's own space."""
BEFORE = {"docs/predict.md": ["dpsweep best quick --epsilon 0.8 --out best.yaml", "dpsweep train best.yaml"]}
"""What a page takes as done."""
RUN = sorted({command.page for command in all_commands() if command.excuse is None})


@dataclass(frozen=True)
class Desk:
    """A working directory as somebody has it after `make sweep`: `.venv`, `data`, a sweep `quick`, pictures of people and their labels."""

    folder: Path

    def run(self, command: str, *, within_s: float = 1800) -> str:
        """A command as one types it there; its output. Fails with its last words."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DPSWEEP_")}
        environment = {**kept, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=within_s, check=False
        )
        assert done.returncode == 0, f"{command} gave {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def clear(self, kept: set[str]) -> None:
        """Takes away what a page made, so that the next one begins where a reader begins."""
        for path in self.folder.iterdir():
            if path.name not in kept:
                subprocess.run(["rm", "-rf", "--", str(path)], check=True)


def make_pictures(folder: Path) -> None:
    """Pictures of synthetic people, and boxes and labels in the forms that the pages name."""
    people = [draw_record("private", seed=7, index=index) for index in range(4)]
    names = [f"person_{index}.jpg" for index in range(len(people))]
    for place in ("images", "photos"):
        (folder / place).mkdir()
        for name, person in zip(names, people, strict=True):
            Image.fromarray(person.image).save(folder / place / name, quality=95)
    Image.fromarray(people[0].image).save(folder / "photo.jpg", quality=95)
    points = [person.keypoints.tolist() for person in people]
    hrnet = [
        {"image": name, "center": [32, 32], "scale": 0.3, "joints": joints, "joints_vis": [1] * 16}
        for name, joints in zip(names, points, strict=True)
    ]
    (folder / "train.json").write_text(json.dumps(hrnet))
    (folder / "person_keypoints.json").write_text(json.dumps(coco_form(names, points)))
    boxes = [{"image": name, "bbox": [2, 2, 60, 60], "score": 0.9} for name in names]
    (folder / "people.json").write_text(json.dumps(boxes))


def coco_form(names: list[str], points: list[list[list[float]]]) -> dict[str, Any]:
    """Labels in COCO's form: one person a picture."""
    return {
        "images": [{"id": index, "file_name": name, "width": 64, "height": 64} for index, name in enumerate(names)],
        "annotations": [
            {"id": index, "image_id": index, "category_id": 1, "bbox": [2, 2, 60, 60], "area": 3600, "iscrowd": 0, "num_keypoints": 16,
             "keypoints": [number for x, y in joints for number in (x, y, 2)]}
            for index, joints in enumerate(points)
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": list(MPII_16.joints)}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk after a sweep of the preset quick, made smaller."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    made = Desk(folder)
    make_pictures(folder)
    for name, (domain, count, role) in PEOPLE.items():
        made.run(f"dpsweep data synth --domain {domain} --count {count} --seed {count} --role {role} --out data/tiny/{name}")
    smaller = " ".join(f"--set {shlex.quote(f'{path}={json.dumps(value)}')}" for path, value in SMALLER.items())
    made.run(f"dpsweep run quick --trials 2 --max-concurrent 2 {smaller}")
    (folder / "my_space.yaml").write_text(MINE)
    return made


def test_every_documented_command_is_run_or_excused_and_no_excuse_is_stale() -> None:
    commands = [command.text for command in all_commands()]
    assert len(commands) > 60
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, text) for text in commands)] == []
    assert {"README.md", "docs/tutorial.md", "docs/predict.md", "docs/data.md"} <= set(RUN)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_as_they_are_printed(desk: Desk, page: str) -> None:
    before = {path.name for path in desk.folder.iterdir()}
    try:
        for text in [*BEFORE.get(page, ()), *(one.text for one in commands_of(ROOT / page) if one.excuse is None)]:
            desk.run(text)
    finally:
        desk.clear(before)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_python_of_the_notebook_page_runs_as_it_is_printed(desk: Desk) -> None:
    before = {path.name for path in desk.folder.iterdir()}
    code = "\n".join(python_blocks(ROOT / "docs" / "notebook.md"))
    asked = '"quick", epsilons=[0.8], trials=4, name="first"'
    assert code.count(asked) == 2
    smaller = f"{asked}, set={SMALLER!r}"
    try:
        (desk.folder / "cells.py").write_text(f"if __name__ == '__main__':\n{textwrap.indent(code.replace(asked, smaller), '    ')}")
        told = desk.run("python cells.py")
        assert "no sweep nowhere" in told or "nowhere" in told
    finally:
        desk.clear(before)
