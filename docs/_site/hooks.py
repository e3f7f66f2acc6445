"""What mkdocs does beside its own work: generated reference pages, and pages of the repository that lie outside docs/.

A page links to files of the repository by relative paths, so that the links work in an editor too. A Markdown file or a picture that is
linked becomes part of the site, below `repository/`; of any other file the link becomes its name.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OUTSIDE = "repository"
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^()\s]+)\)")
SHOWN = (".md", ".png", ".svg")


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, then every page and picture outside docs/ that a page of the site links to."""
    for name, content in _reference().pages().items():
        files.append(File.generated(config, name, content=content))
    waiting = [DOCS / file.src_uri for file in files.documentation_pages() if file.abs_src_path is not None]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for target in linked_files(page):
            if target in seen or site_name(target) in files.src_uris:
                continue
            seen.add(target)
            files.append(File.generated(config, site_name(target), abs_src_path=str(target)))
            if target.suffix == ".md":
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Turns links to files of the repository into links of the site."""
    source = source_of(page.file.src_uri)

    def of(found: re.Match[str]) -> str:
        path, _, anchor = found["target"].partition("#")
        if not path or ":" in path:
            return found[0]
        there = (source.parent / path).resolve()
        name = site_name(there) if there.is_relative_to(ROOT) else ""
        if name in files.src_uris:
            return f"{found['image']}[{found['text']}]({relative(name, page.file.src_uri)}{'#' + anchor if anchor else ''})"
        if there.is_file():
            return f"{found['text']} (`{there.relative_to(ROOT)}`)"
        return found[0]

    return LINK.sub(of, markdown)


def _reference() -> Any:
    """The module beside this one: mkdocs loads hooks by their path, not as a package."""
    spec = importlib.util.spec_from_file_location("dpsweep_site_reference", Path(__file__).with_name("reference.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def linked_files(page: Path) -> list[Path]:
    """The Markdown files and pictures of the repository that a page links to."""
    text = page.read_text(encoding="utf-8")
    paths = [found["target"].partition("#")[0] for found in LINK.finditer(text)]
    there = [(page.parent / path).resolve() for path in paths if path and ":" not in path]
    return [path for path in there if path.is_file() and path.suffix in SHOWN and path.is_relative_to(ROOT)]


def site_name(path: Path) -> str:
    """Where a file of the repository lies on the site."""
    return path.relative_to(DOCS).as_posix() if path.is_relative_to(DOCS) else f"{OUTSIDE}/{path.relative_to(ROOT).as_posix()}"


def source_of(name: str) -> Path:
    """The inverse of `site_name`."""
    return ROOT / name.removeprefix(f"{OUTSIDE}/") if name.startswith(f"{OUTSIDE}/") else DOCS / name


def relative(name: str, page: str) -> str:
    """A file of the site as a page of it links to it."""
    up = page.count("/")
    return "../" * up + name
