"""Who of the validation people scores the search and who the verdict: by the names of their pictures, the same everywhere."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from dpcore.config.scored_people import ScoredPeople
from dpcore.data.validation_parts import fraction_of, rows_of
from dpcore.errors import BadInput


@dataclass
class People:
    """What of a dataset decides."""

    image_ids: np.ndarray
    video_ids: np.ndarray = field(default_factory=lambda: np.array([]))
    manifest: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(name="people"))

    def __post_init__(self) -> None:
        if not len(self.video_ids):
            self.video_ids = np.full(len(self.image_ids), "", dtype=np.str_)
        self.source_ids = np.array([f"row-{number}" for number in range(len(self.image_ids))])

    def __len__(self) -> int:
        return len(self.image_ids)


def named(count: int) -> People:
    return People(np.array([f"im{number:05d}.jpg" for number in range(count)]))


def part(people: People, frac: float, name: str) -> np.ndarray:
    return rows_of(people, ScoredPeople(search_frac=frac, part=name))


def test_a_picture_keeps_its_part_in_every_version_of_dpsweep() -> None:
    """The numbers were computed with `sha256sum`: if they change, people that no search saw are seen by the next one."""
    assert [round(fraction_of(name), 6) for name in ("im00001.jpg", "im00002.jpg")] == [0.714126, 0.632586]


@pytest.mark.parametrize("frac", [0.2, 0.5])
def test_everybody_is_in_one_part_and_its_size_is_about_the_share(frac: float) -> None:
    people = named(2000)
    search, verdict = part(people, frac, "search"), part(people, frac, "verdict")
    assert sorted([*search, *verdict]) == list(range(2000))
    assert abs(len(search) / 2000 - frac) < 0.05


def test_nobody_moves_when_somebody_joins_or_the_share_grows() -> None:
    people, more = named(200), named(300)
    before, after = part(people, 0.5, "search"), part(more, 0.5, "search")
    assert [row for row in after if row < 200] == list(before)
    assert set(part(people, 0.3, "search")) < set(before)


def test_people_of_one_picture_and_pictures_of_one_video_stay_together() -> None:
    pair = People(np.array([f"im{number // 2}" for number in range(400)]))
    found = part(pair, 0.5, "search")
    assert {row // 2 for row in found} == {row // 2 for row in found if row % 2} == {row // 2 for row in found if not row % 2}
    frames = People(np.array([f"frame{number}" for number in range(400)]), np.array([f"film{number // 100}" for number in range(400)]))
    assert {len(part(frames, 0.5, name)) % 100 for name in ("search", "verdict")} == {0}


def test_a_part_without_anybody_is_refused_with_what_to_do() -> None:
    empty = "verdict" if len(part_or_none(named(1), "search")) else "search"
    with pytest.raises(BadInput, match=rf"nobody is left for the {empty}.*validation_search_frac"):
        part(named(1), 0.5, empty)


def part_or_none(people: People, name: str) -> np.ndarray:
    try:
        return part(people, 0.5, name)
    except BadInput:
        return np.array([], dtype=np.int64)
