"""Disclosure beside the trials: what a worker gives back, and what is found out before."""

from pathlib import Path
from typing import Any

import pytest

from dpcore.config import Places
from dpcore.data.synthetic import synth
from dpcore.errors import BadInput, Corrupt
from search_spaces.loader import load_space
from sweeps.ray_runtime import disclosing
from sweeps.ray_runtime.disclosing import check_people, disclosing_of, measured_beside
from sweeps.records.spec import SweepSpec

SPACE = """
sweep: {epsilons: [2], delta: 1.0e-3, trials_per_epsilon: 3, sampler: random, accounting: composed}
references: {disclosure: {steps: 3, batch_size: 4}}
splits: {blur: {transform: gaussian_blur, sigma_px: 1}}
trial:
  data: {private: p, public: q, validation: v, nominal_examples: 200}
  model: {input_height_px: 64, input_width_px: 64}
  stages: {public: {steps: 2, batch_size: 4}, public_view: {steps: 10}, private: {steps: 8, expected_batch_size: 40}}
search:
  method: {choice: [dpsgd, feature]}
  split: {choice: [blur], when: {method: feature}}
  clip_norm: {float: [0.1, 1.0], log: true}
"""


@pytest.fixture
def spec(tmp_path: Path) -> SweepSpec:
    (tmp_path / "space.yaml").write_text(SPACE)
    places = Places(data_dir=tmp_path / "data", cache_dir=tmp_path / "cache")
    for name, count in (("q", 9), ("v", 8)):
        synth(places.data_dir / name, "public", count=count, seed=len(name) + count, role="PUBLIC")
    return SweepSpec(name="shown", space=load_space(tmp_path / "space.yaml"), places=places, storage=tmp_path / "storage")


def test_a_worker_gives_back_policy_and_sheet_and_the_pictures_were_made_before_the_public_start(
    spec: SweepSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dpcore.disclosure import measure

    order: list[str] = []
    attack, network = measure._attack, measure.public_network
    monkeypatch.setattr(measure, "_attack", lambda *given: order.append("attack") or attack(*given))
    monkeypatch.setattr(measure, "public_network", lambda *given, **more: order.append("network") or network(*given, **more))
    found = measured_beside(spec.model_dump_json())
    assert found["policy"]["splits"][0]["splits"] == ["blur"]
    assert Path(found["sheet"]).is_file()
    assert order == ["attack", "network"]
    order.clear()
    again = measured_beside(spec.model_dump_json())
    assert again["policy"] == found["policy"]
    assert order == ["network"]


def test_an_error_of_ours_is_an_answer(spec: SweepSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def corrupt(*_: Any) -> None:
        raise Corrupt("somewhere.npz cannot be read")

    monkeypatch.setattr(disclosing, "measure_policy", corrupt)
    assert measured_beside(spec.model_dump_json()) == {"error": "somewhere.npz cannot be read", "kind": "Corrupt"}


def test_too_few_people_are_found_out_before_the_first_trial(spec: SweepSpec, tmp_path: Path) -> None:
    check_people(spec)
    places = Places(data_dir=tmp_path / "other", cache_dir=tmp_path / "cache")
    synth(places.data_dir / "q", "public", count=9, seed=1, role="PUBLIC")
    synth(places.data_dir / "v", "public", count=1, seed=2, role="PUBLIC")
    with pytest.raises(BadInput, match="at least 2"):
        check_people(spec.model_copy(update={"places": places}))


def test_nothing_is_begun_where_nothing_is_wanted(spec: SweepSpec, tmp_path: Path) -> None:
    off = load_space(tmp_path / "space.yaml", assignments=["references.disclosure=false"])
    assert disclosing_of(spec.model_copy(update={"space": off}), print) is None


def test_a_measurement_waits_until_it_is_begun(spec: SweepSpec) -> None:
    """The public start has the cores first: without Ray, nothing could have begun."""
    said: list[str] = []
    due = disclosing_of(spec, said.append)
    assert due is not None
    assert (due.is_running, due.is_ready, said) == (False, False, [])
