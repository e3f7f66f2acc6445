"""The HTML page: what must be on it, what must not, and that a real browser shows it without a network."""

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import chromium, visit
from report.made_sweep import EPSILONS, report_of, results_of, spec_in

from dpcore.config import Places
from dpcore.config.methods import METHODS
from sweeps.pricing.regimes import NO_GUARANTEE
from sweeps.records.results import SweepResults
from sweeps.records.spec import SweepSpec
from sweeps.report.page.files import PAGE, write_report
from sweeps.report.page.page import render_page
from sweeps.report.page.svg import MARKERS, AxisScale, spread

QUOTED = "maria"


class Elements(HTMLParser):
    """All elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture
def spec(tmp_path: Path, places: Places) -> SweepSpec:
    return spec_in(tmp_path, places)


def page_of(results: SweepResults, spec: SweepSpec) -> str:
    return render_page(report_of(results, spec))


def test_the_page_has_its_parts_and_every_link_leads_to_one(spec: SweepSpec) -> None:
    page = Elements(page_of(results_of(spec), spec))
    parts = {one["id"] for one in page.of("section")}
    assert {"answers", "price", "curves", "clipping", "search", "winners", "joints", "trials", "statement", "next"} <= parts
    assert {str(one["href"]) for one in page.of("a")} == {f"#{name}" for name in parts}
    assert max(Counter(one["id"] for _, one in page.found if "id" in one).values()) == 1


def test_one_sentence_per_epsilon_with_uncertainty_and_price(spec: SweepSpec) -> None:
    text = " ".join(Elements(page_of(results_of(spec), spec)).words)
    for epsilon in EPSILONS:
        assert re.search(rf"At ε = {epsilon:g}, .+? reaches PCKh@0.5 \d+\.\d % \(mean of 2 fresh seeds\): [+-]\d+\.\d points", text)
    assert "Price of finding it: ε = 4.372 (composed)." in text


def test_the_page_asks_no_network_for_anything(spec: SweepSpec) -> None:
    page = page_of(results_of(spec), spec)
    elements = Elements(page)
    policy = next(one["content"] for one in elements.of("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert str(policy).startswith("default-src 'none'")
    addresses = [str(value) for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")]
    assert not [one for one in addresses if not one.startswith(("#", "data:"))]
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|sendBeacon", page)


def test_every_figure_has_words_for_people_who_do_not_see_it(spec: SweepSpec) -> None:
    figures = Elements(page_of(results_of(spec), spec)).of("svg")
    drawn = [one for one in figures if one.get("role") == "img"]
    assert len(drawn) >= 12
    assert all(one["aria-label"] for one in drawn)
    assert all(one.get("aria-hidden") == "true" for one in figures if one.get("role") != "img")


def test_every_finished_trial_is_a_dot_and_no_line_joins_the_bests(spec: SweepSpec) -> None:
    results = results_of(spec)
    page = page_of(results, spec)
    section = page[page.index('id="curves"') : page.index('id="clipping"')]
    dots = Counter(re.findall(r'<use [^>]*data-id="([^"]+)"', section))
    finished = {record.trial_id for record in results.of_role("search") if record.state == "done"}
    assert finished <= dots.keys()
    assert not [record.trial_id for record in results.of_role("search") if record.state == "failed" and record.trial_id in dots]
    done = [record for record in results.of_role("search") if record.state == "done"]
    everywhere = [name for name in METHODS.names() if {one.epsilon for one in done if one.config.method == name} == set(EPSILONS)]
    assert everywhere
    assert section.count('class="curve"') == 2 * len(everywhere)


def test_methods_differ_without_colours() -> None:
    known = [METHODS.get(name) for name in METHODS.names() if METHODS.get(name).is_private]
    assert len({one.marker for one in known}) == len(known)
    assert {one.marker for one in known} <= MARKERS.keys()


def test_nothing_of_a_worker_is_shown_that_the_door_keeps(spec: SweepSpec) -> None:
    """The records of this test hold a training loss and the words of a failure. Neither has a place on a page."""
    page = page_of(results_of(spec, protected=True), spec)
    assert "41.25" not in page
    assert "train/loss" not in page
    assert QUOTED not in page
    assert "stand-in" not in page.lower()
    assert "data:image" not in page


def test_a_private_selection_shows_its_winners_and_no_number_of_trials(spec: SweepSpec) -> None:
    law = {
        "accounting": "private_selection",
        "selection": {"mean_trials": 6},
        "trials_per_epsilon": None,
        "sampler": "random",
        "method_shares": "free",
    }
    space = spec.space.model_validate({**spec.space.document(), "sweep": {**spec.space.document()["sweep"], **law}})
    sealed = spec.model_copy(update={"space": space})
    found = results_of(sealed, trials=2, accounting="private_selection")
    released = replace(found, records=tuple(one for one in found.records if one.state == "done"))
    page = page_of(released, sealed)
    text = " ".join(Elements(page).words)
    assert "Number, settings and scores of the other trials are sealed" in text
    assert 'id="trials"' not in page
    assert 'class="strand' not in page
    assert not re.search(r"\b\d+\s+(private )?trials\b", text)


def test_a_name_cannot_break_out_of_the_page(spec: SweepSpec) -> None:
    results = results_of(spec)
    named = replace(report_of(results, spec), name="</script><b onload=x>", next_commands=("<img src=x>",))
    page = render_page(named)
    assert "<b onload" not in page
    assert "<img" not in page
    assert json.loads(re.search(r'id="told">(.*?)</script>', page, re.DOTALL).group(1))["e0.8-000"]


def test_an_unaccounted_sweep_says_so_on_top(spec: SweepSpec) -> None:
    page = page_of(results_of(spec, accounting="unaccounted"), spec)
    header = page[page.index("<header>") : page.index("</header>")]
    assert NO_GUARANTEE in header.lower()


def test_a_sweep_without_a_finished_trial_still_has_a_page(spec: SweepSpec) -> None:
    empty = replace(results_of(spec), records=())
    assert "no private trial is done" in page_of(empty, spec)


def test_tables_lie_beside_the_page_without_settings_blobs_and_errors(spec: SweepSpec, tmp_path: Path) -> None:
    results = results_of(spec)
    write_report(report_of(results, spec), tmp_path / "out", results=results)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {PAGE, "report.md", "pckh_over_epsilon.png", "pckh_over_epsilon.svg", "trials.csv", "trials.parquet"} <= written
    with (tmp_path / "out" / "trials.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.records)
    assert {"trial_id", "method", "clip_norm", "score", "epsilon_spent"} <= rows[0].keys()
    assert not {"config", "error"} & rows[0].keys()
    assert not [path.name for path in (tmp_path / "out").iterdir() if QUOTED.encode() in path.read_bytes()]
    again = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write_report(report_of(results, spec), tmp_path / "out", results=results)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == again


def test_labels_move_apart_and_scales_have_round_ticks() -> None:
    places = spread([10.0, 10.0, 11.0], gap=5.0, low=0.0, high=30.0)
    assert min(abs(a - b) for a, b in zip(sorted(places), sorted(places)[1:], strict=False)) >= 5.0 - 1e-3
    assert AxisScale(low=0.43, high=0.62, start=0, end=1).ticks(5) == pytest.approx([0.45, 0.5, 0.55, 0.6])
    assert AxisScale(low=0.1, high=1.0, start=0, end=1, log=True).ticks(4) == pytest.approx([0.1, 0.2, 0.5, 1.0])


ASKS = (
    "document.documentElement.scrollWidth",
    "[...document.querySelectorAll('main figure svg[role=img]')].filter((one) => one.getBoundingClientRect().height > 40).length",
    "[...document.querySelectorAll('svg text')].filter((one) => one.closest('.panels') && one.getBoundingClientRect().height < 9).length",
    """(() => {
        const dot = document.querySelector('#curves use[data-id]');
        dot.scrollIntoView({ block: 'center', behavior: 'instant' });
        const box = dot.getBoundingClientRect();
        dot.dispatchEvent(new PointerEvent('pointermove', { bubbles: true, clientX: box.x, clientY: box.y }));
        const id = dot.dataset.id;
        return [document.getElementById('tip').textContent.includes(id), document.querySelectorAll(`path.hot[data-id="${id}"]`).length > 0];
    })()""",
    """(() => {
        const filter = document.getElementById('filter');
        filter.value = 'failed';
        filter.dispatchEvent(new Event('input'));
        return [...document.querySelectorAll('#runs tbody tr')].filter((row) => !row.hidden).length;
    })()""",
)


@pytest.mark.skipif(chromium() is None, reason="no chromium on this machine (Debian: apt-get install chromium)")
def test_a_browser_shows_it_at_both_widths_in_silence_and_without_a_network(spec: SweepSpec, tmp_path: Path) -> None:
    results = results_of(spec)
    write_report(report_of(results, spec), tmp_path / "out", results=results)
    profile = tmp_path / "profile"
    for seen in visit(f"file://{tmp_path / 'out' / PAGE}", widths=(1400, 390), asks=ASKS, profile=profile):
        wide, figures, tiny, pointed, failed = seen.answers
        assert seen.console == []
        assert seen.requests == []
        assert wide == seen.width
        assert figures >= 10
        assert tiny == 0
        assert pointed == [True, True]
        assert failed == 2
    shutil.rmtree(profile, ignore_errors=True)
