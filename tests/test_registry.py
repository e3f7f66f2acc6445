"""Tables of named objects: what they refuse, and in which words a plugin that does not load is named."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpcore.config.registry import PLUGINS_VARIABLE, Table, installed
from dpcore.errors import BadInput


@dataclass(frozen=True)
class Dish:
    name: str
    hot: bool = True


@pytest.fixture
def table() -> Iterator[Table[Dish]]:
    installed.cache_clear()
    yield Table("dish", Dish, (Dish("soup"), Dish("salad", hot=False)))
    installed.cache_clear()


def package(folder: Path, entry_points: str, code: str = "") -> None:
    """A distribution on the path, with its metadata."""
    (folder / "kitchen.py").write_text(code)
    about = folder / "kitchen-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kitchen\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(entry_points)


def test_an_unknown_name_is_met_with_the_nearest_and_all(table: Table[Dish]) -> None:
    with pytest.raises(BadInput, match=r"^unknown dish sou; did you mean soup\? \(expected one of soup, salad\)$"):
        table.get("sou")
    with pytest.raises(BadInput, match=r"^unknown dish 7x; expected one of soup, salad$"):
        table.get("7x")
    assert table.find(["soup"]) is None


def test_a_name_is_given_once_and_an_entry_is_of_the_tables_class(table: Table[Dish]) -> None:
    table.register(Dish("soup"))
    with pytest.raises(BadInput, match="dish soup is defined already"):
        table.register(Dish("soup", hot=False))
    with pytest.raises(BadInput, match="expected a Dish, given 'soup'"):
        table.register("soup")  # type: ignore[arg-type]


def test_an_installed_package_adds_an_entry(table: Table[Dish], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path, "[dpsweep.dishs]\npie = kitchen_pie:PIE\n")
    (tmp_path / "kitchen_pie.py").write_text("from types import SimpleNamespace\nPIE = SimpleNamespace(name='pie')\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    assert table.names() == ("soup", "salad", "pie")
    with pytest.raises(BadInput, match=r"dish pie \(dpsweep.dishs, package kitchen 1.2\): kitchen_pie:PIE must be a Dish of that name"):
        table.get("pie")


@pytest.mark.parametrize(
    ("code", "message"),
    [("raise RuntimeError('no gas')", "RuntimeError: no gas"), ("", "AttributeError: module 'kitchen' has no attribute 'PIE'")],
)
def test_a_broken_package_is_one_message(
    table: Table[Dish], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    package(tmp_path, "[dpsweep.dishs]\npie = kitchen:PIE\n", code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kitchen", raising=False)
    installed.cache_clear()
    assert table.get("soup").hot  # what nobody asked for breaks nothing
    with pytest.raises(BadInput) as caught:
        table.get("pie")
    assert str(caught.value) == f"dish pie (dpsweep.dishs, package kitchen 1.2): does not load: {message}; mend or remove it"


def test_modules_of_the_environment_are_imported_when_a_name_is_not_known(
    table: Table[Dish], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLUGINS_VARIABLE, "not_there_at_all")
    assert table.get("salad") == Dish("salad", hot=False)
    with pytest.raises(BadInput, match="DPSWEEP_PLUGINS names not_there_at_all: does not load: ModuleNotFoundError"):
        table.get("pie")


def test_the_command_line_prints_one_line_for_a_plugin_that_does_not_import(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "sweeps.cli", "run", "quick", "--dry-run", "--set", "sweep.accounting=mine", "--storage", str(tmp_path)],
        env={"PATH": "", "DPSWEEP_PLUGINS": "mine_is_not_there"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.strip().splitlines()
    where = "sweep.accounting: DPSWEEP_PLUGINS names mine_is_not_there: does not load: "
    assert line.endswith(where + "ModuleNotFoundError: No module named 'mine_is_not_there'; mend or remove it")
