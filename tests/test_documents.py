"""What people read stays true to the repository: links resolve, commands parse, every command and room is listed, sentences are short."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import dpsweep
from sweeps.cli import build_parser, parse_remote

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_READMES = [ROOT / folder / "README.md" for folder in ("dpcore", "search_spaces", "sweeps", "cluster", "benchmarks")]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
GUIDES = [ROOT / "README.md", *DOCS, *PACKAGE_READMES]
LINKED = [*GUIDES, ROOT / "CHANGELOG.md", *sorted((ROOT / "benchmarks/results").rglob("*.md"))]
MOST_WORDS = 20
"""A sentence, on average over a page."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(text: str, path: Path) -> list[str]:
    """The links of a text at `path` that lead to no file of the repository or to no heading of it."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.is_relative_to(ROOT) or not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(target)
    return wrong


def commands_in(path: Path) -> list[list[str]]:
    """The arguments of the `dpsweep` commands in a page's code blocks."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^ {4}(?:\.venv/bin/)?(dpsweep .+)$", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in blocks]


def sentences(text: str) -> list[str]:
    """The sentences of a page's prose: paragraphs and list entries, without code, tables and headings."""
    prose = re.sub(r"^( {4,}|\||#|```).*$", "", text, flags=re.MULTILINE)
    blocks = re.split(r"\n\s*\n|^\s*(?:[-*]|\d+\.) ", prose, flags=re.MULTILINE)
    flat = (re.sub(r"`[^`]*`|\]\([^)]*\)", "code", " ".join(block.split())) for block in blocks)
    return [one for block in flat for one in re.split(r"(?<=[.!?])[*)]* |: (?=[A-Z])", block) if len(one.split()) > 1]


def docstrings(path: Path) -> list[str]:
    """The docstrings of a module, up to their examples."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, documented)]
    return [text.partition(">>>")[0] for node in nodes if (text := ast.get_docstring(node)) is not None]


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_every_link_leads_to_a_file_of_the_repository(path: Path) -> None:
    assert broken_links(path.read_text(encoding="utf-8"), path) == []


def test_a_link_to_nowhere_is_found() -> None:
    text = "[a](search.md#early-stopping) [b](search.md#late-stopping) [c](nowhere.md) [d](../../outside.md) [e](https://example.org)"
    assert broken_links(text, ROOT / "docs" / "index.md") == ["search.md#late-stopping", "nowhere.md", "../../outside.md"]


def test_a_long_sentence_is_counted_and_code_is_not() -> None:
    text = "# Title\n\nOne two `x y z` four. Five: Six seven\n\n    dpsweep run quick\n\n- an entry of six words, really\n"
    assert [len(one.split()) for one in sentences(text)] == [4, 2, 6]


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#\s]+)", index.read_text(encoding="utf-8"))}
    assert [name_of(path) for path in DOCS if path not in linked and path != index] == []


@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_every_command_of_a_code_block_parses(path: Path) -> None:
    for words in commands_in(path):
        if words[0] == "submit" and "--" in words:
            parse_remote(words[words.index("--") + 1 :])
            words = words[: words.index("--")]
        build_parser().parse_args(words)


def test_the_page_of_commands_lists_every_command() -> None:
    (subcommands,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    table = re.findall(r"^\| `(.+)` \|", (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {row.split()[0] for row in table} == set(subcommands.choices)


@pytest.mark.parametrize("package", ["dpcore", "sweeps"])
def test_the_readme_of_a_package_lists_its_rooms(package: str) -> None:
    rooms = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    text = (ROOT / package / "README.md").read_text(encoding="utf-8")
    assert [room for room in sorted(rooms) if f"`{room}/`" not in text] == []


@pytest.mark.parametrize("path", GUIDES, ids=name_of)
def test_sentences_are_short(path: Path) -> None:
    lengths = [len(sentence.split()) for sentence in sentences(path.read_text(encoding="utf-8"))]
    assert sum(lengths) / len(lengths) <= MOST_WORDS


def test_sentences_of_docstrings_are_short() -> None:
    long = []
    for package in ("dpcore", "dpsweep", "search_spaces", "sweeps"):
        for path in sorted((ROOT / package).rglob("*.py")):
            lengths = [len(one.split()) for text in docstrings(path) for one in sentences(text)]
            if lengths and sum(lengths) / len(lengths) > MOST_WORDS:
                long.append(f"{name_of(path)}: {sum(lengths) / len(lengths):.1f} words a sentence")
    assert long == []


def site_module(name: str) -> ModuleType:
    """A module of what builds the site; mkdocs loads it by its path too."""
    spec = importlib.util.spec_from_file_location(f"site_{name}", ROOT / "docs" / "_site" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["private_step.svg", "public_view.svg", pytest.param("price_of_choosing.svg", marks=pytest.mark.slow)])
def test_a_picture_is_what_its_script_draws(name: str) -> None:
    drawn = site_module("pictures").PICTURES[name]()
    committed = (ROOT / "docs" / "assets" / name).read_text(encoding="utf-8")
    without_pixels = re.compile(r"base64,[^']*")  # another zlib packs equal pixels otherwise
    assert without_pixels.sub("", drawn) == without_pixels.sub("", committed)


def test_the_reference_has_every_key_of_a_space_and_every_exported_name() -> None:
    pages = site_module("reference").pages()
    for key in ("sweep", "trials_per_epsilon", "mean_trials", "winner_seeds", "constraints"):
        assert f"| `{key}` |" in pages["reference/space-keys.md"]
    for key in ("clip_norm", "learning_rate", "expected_batch_size", "sigma_px", "backbone"):
        assert f"| `{key}` |" in pages["reference/trial-keys.md"]
    assert sorted(re.findall(r"^::: .*\.(\w+)$", pages["reference/python.md"], flags=re.MULTILINE)) == sorted(dpsweep.__all__)


def test_the_site_names_every_page_of_the_folder() -> None:
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {path.relative_to(ROOT / "docs").as_posix() for path in DOCS} <= set(named)
