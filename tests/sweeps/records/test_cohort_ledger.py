"""The people of a protected dataset have one ledger and one cap, whatever storage, name or copy they come in."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader, load_manifest
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.errors import BadInput, Refused
from dpcore.privacy.accounting import Spending
from dpcore.privacy.composition import price, rdp_of
from search_spaces.loader import build_space
from sweeps import cli
from sweeps.engine.preflight import charged_to, describe_dataset
from sweeps.ledger.ledger import Ledger, Reservation
from sweeps.ledger.lifetime import lifetime_cap
from sweeps.records.cohort_ledger import bind_ledger, charged_url
from sweeps.records.spec import SweepSpec

RUN = Reservation(
    sweep="s", trial_id="e1-000", dataset="clinic", cohort="ward-3", sampling_prob=0.0613, noise_multiplier=3.1875, steps=61, epsilon=2.0,
    delta=1e-5, unit="image", examples_per_unit=1, views="[]", labels="public",
)  # fmt: skip
SPACE = {
    "sweep": {"epsilons": [4.0], "delta": 1e-3, "trials_per_epsilon": 1, "sampler": "random", "accounting": "composed"},
    "references": {"floor": True, "ceiling": False, "control": False, "winner_seeds": 0},
    "trial": {
        "data": {"private": "clinic", "public": "public", "validation": "validation", "nominal_examples": 6},
        "stages": {"private": {"steps": 3, "expected_batch_size": 2}},
    },
    "search": {"method": {"choice": ["dpsgd"]}, "clip_norm": {"float": [0.1, 1.0]}},
}


@pytest.fixture
def clinic(places: Places) -> ShardSet:
    header = DatasetHeader(
        name="clinic", role="PRIVATE", protected=True, height_px=64, width_px=64, origin="a test", cohort="ward-3"
    )  # fmt: skip
    write_shards(places.data_dir / "clinic", [draw_record("private", seed=5, index=index) for index in range(6)], header=header)
    return open_shards(places.data_dir / "clinic")


def spec_of(places: Places, storage: Path, *, ledger_url: str | None = None) -> SweepSpec:
    for name, seed in (("public", 1), ("validation", 2)):
        if not (places.data_dir / name).exists():
            synth(places.data_dir / name, "public", count=4, seed=seed, role="PUBLIC")
    return SweepSpec(name="s", space=build_space(SPACE, name="s"), places=places, storage=storage, ledger_url=ledger_url)


def test_protected_people_without_a_ledger_are_refused_and_the_way_on_is_said(places: Places, clinic: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"dpsweep data ledger .*clinic --ledger STORAGE/ledger\.sqlite .*--earlier-unit image"):
        describe_dataset(spec_of(places, tmp_path / "store"))


def test_every_storage_charges_the_ledger_that_the_people_name(places: Places, clinic: ShardSet, tmp_path: Path) -> None:
    bind_ledger(clinic, ledger=None, epsilon_total=3.0, delta=1e-5)
    found = set()
    for storage in ("one", "two", "three", "four"):
        spec = spec_of(places, tmp_path / storage)
        found.add(charged_to(spec, describe_dataset(spec)).resolved_ledger_url)
    assert found == {f"sqlite:///{places.data_dir.resolve() / 'ward-3.ledger.sqlite'}"}
    other = spec_of(places, tmp_path / "one", ledger_url=f"sqlite:///{tmp_path / 'mine.sqlite'}")
    with pytest.raises(Refused, match="leave --ledger out"):
        charged_to(other, describe_dataset(other))


def test_a_later_sweep_without_a_cap_does_not_pass_that_of_its_people(clinic: ShardSet) -> None:
    opened = bind_ledger(clinic, ledger=None, epsilon_total=3.0, delta=1e-5)
    ledger = Ledger(str(load_manifest(clinic.folder).ledger))
    terms = lifetime_cap([opened])
    assert terms is not None
    fit = int(terms.rdp / rdp_of(RUN.spending, terms.order))
    assert price([(Spending(0.0613, 3.1875, 61), fit)], 1e-5) <= 3.0
    for number in range(fit):
        ledger.reserve(RUN.__class__(**{**RUN.__dict__, "sweep": f"s{number}"}))
    with pytest.raises(Refused, match="pass the cap of cohort ward-3 for all time"):
        ledger.reserve(RUN)
    another = Ledger(ledger.url)  # a race: this one has read nothing yet
    with pytest.raises(Refused, match="for all time"):
        another.reserve(RUN, cap=1000.0, compose=price)
    bind_ledger(clinic, ledger=None, epsilon_total=4.0, delta=1e-5)
    assert ledger.reserve(RUN).sweep == "s"
    assert [line.epsilon for line in ledger.lines() if line.kind == "open"] == [3.0, 4.0]
    assert ledger.verify(lambda charge, delta: 0.1) == ()
    with pytest.raises(Refused, match="for all time"):
        bind_ledger(clinic, ledger=None, epsilon_total=1.0, delta=1e-5)


def test_the_cap_is_the_peoples_and_not_the_names(clinic: ShardSet) -> None:
    """The same people under another dataset's name are charged together."""
    opened = bind_ledger(clinic, ledger=None, epsilon_total=3.0, delta=1e-5)
    ledger, terms = Ledger(str(load_manifest(clinic.folder).ledger)), lifetime_cap([opened])
    assert terms is not None
    fit = int(terms.rdp / rdp_of(RUN.spending, terms.order))
    for number in range(fit):
        ledger.reserve(RUN.__class__(**{**RUN.__dict__, "trial_id": f"e1-{number}", "dataset": f"name-{number}"}))
    with pytest.raises(Refused, match="for all time"):
        ledger.reserve(RUN.__class__(**{**RUN.__dict__, "dataset": "another name"}))


def test_a_copy_elsewhere_is_charged_to_the_same_ledger_and_refused_without_it(clinic: ShardSet, tmp_path: Path) -> None:
    bind_ledger(clinic, ledger=None, epsilon_total=None, delta=None)
    url = charged_url(open_shards(clinic.folder))
    shutil.copytree(clinic.folder, tmp_path / "elsewhere" / "clinic")
    copy = open_shards(tmp_path / "elsewhere" / "clinic")
    assert charged_url(copy) == url
    file = clinic.folder.parent / "ward-3.ledger.sqlite"
    for path in file.parent.glob(f"{file.name}*"):
        path.rename(path.with_name(f"moved-{path.name}"))
    with pytest.raises(Refused, match=r"which is not there: nothing is spent without it.*dpsweep data ledger"):
        charged_url(copy)
    Ledger(f"sqlite:///{file}").reserve(RUN.__class__(**{**RUN.__dict__, "cohort": "others"}))
    with pytest.raises(Refused, match="holds no account of them"):
        charged_url(copy)


def test_a_reimport_of_the_same_people_goes_on_in_their_ledger(places: Places, clinic: ShardSet, tmp_path: Path) -> None:
    bind_ledger(clinic, ledger=str(tmp_path / "l.sqlite"), epsilon_total=3.0, delta=1e-5)
    header = clinic.manifest.header.model_copy(update={"name": "small", "height_px": 32, "width_px": 32, "ledger": None})
    records = [draw_record("private", seed=5, index=index) for index in range(6)]
    small = [record.__class__(**{**record.__dict__, "image": np.ascontiguousarray(record.image[::2, ::2])}) for record in records]
    write_shards(places.data_dir / "small", small, header=header)
    again = open_shards(places.data_dir / "small")
    with pytest.raises(Refused, match="another dataset of theirs beside it says"):
        bind_ledger(again, ledger=str(tmp_path / "other.sqlite"), epsilon_total=None, delta=None)
    assert bind_ledger(again, ledger=None, epsilon_total=None, delta=None).epsilon == 3.0
    assert load_manifest(again.folder).ledger == f"sqlite:///{tmp_path / 'l.sqlite'}"


def test_a_ledger_of_the_first_version_is_taken_over_with_its_lines(
    clinic: ShardSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "store" / "ledger.sqlite"
    first = RUN.__class__(**{**RUN.__dict__, "unit": "", "examples_per_unit": 0, "views": "", "labels": ""})
    Ledger(f"sqlite:///{old}").reserve(first)
    command = ["data", "ledger", str(clinic.folder), "--ledger", str(old), "--epsilon-total", "3", "--delta", "1e-5"]
    assert cli.main(command) == 0
    ledger = Ledger(f"sqlite:///{old}")
    with pytest.raises(Refused, match="do not say their unit"):
        ledger.reserve(RUN.__class__(**{**RUN.__dict__, "sweep": "new"}))
    assert cli.main([*command, "--earlier-unit", "image"]) == 0
    assert "at most ε = 3 at δ = 1e-05 for all time" in capsys.readouterr().out
    assert ledger.reserve(RUN.__class__(**{**RUN.__dict__, "sweep": "new"})).number == 4
    assert ledger.verify(lambda charge, delta: 0.1) == ()


def test_a_manifest_holds_no_password_and_public_people_have_no_ledger(clinic: ShardSet, places: Places) -> None:
    with pytest.raises(BadInput, match="pgpass"):
        bind_ledger(clinic, ledger="postgresql+psycopg://me:secret@host/db", epsilon_total=None, delta=None)
    synth(places.data_dir / "public", "public", count=2, seed=1, role="PUBLIC")
    with pytest.raises(BadInput, match="is PUBLIC"):
        bind_ledger(open_shards(places.data_dir / "public"), ledger=None, epsilon_total=1.0, delta=None)
