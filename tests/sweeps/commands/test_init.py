"""`dpsweep init`: on four kinds of data the file is accepted as it is written, and reads well."""

import json
from pathlib import Path

import drawn_coco
import pytest
from ended_sweep import ACCOUNTANT

import dpsweep
from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import open_shards, write_shards
from dpcore.data.synthetic import draw_record, synth
from dpcore.errors import BadInput, Refused
from dpcore.pose.skeleton import SKELETONS
from search_spaces.loader import load_space
from sweeps.api.starting import chosen, datasets_below
from sweeps.cli import main
from sweeps.engine import preflight
from sweeps.pricing.worth import worth_of
from sweeps.records.cohort_ledger import bind_ledger

SIZE = {"height_px": 64, "width_px": 64}


@pytest.fixture(autouse=True)
def _quick_accountant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibrations of real noise take ten seconds each, and nothing here depends on them."""
    monkeypatch.setattr(preflight, "dp_accountant", lambda cache_dir=None: ACCOUNTANT)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places.of(tmp_path / "data", tmp_path / "cache")


def drawings(places: Places, *, count: int = 240) -> str:
    """So many protected drawings, with PUBLIC people to start from and to score on."""
    header = DatasetHeader(name="ward", role="PRIVATE", protected=True, origin="drawn", cohort="ward", **SIZE)
    people = [draw_record("private", seed=5, index=index) for index in range(12)]
    write_shards(places.data_dir / "ward", people[: min(count, 12)], header=header)
    bind_ledger(open_shards(places.data_dir / "ward"), ledger=None, epsilon_total=None, delta=None)
    synth(places.data_dir / "stock" / "train", "public", count=9, seed=1, role="PUBLIC")
    synth(places.data_dir / "stock" / "val", "private", count=6, seed=9, role="PUBLIC")
    return "ward"


def begun(places: Places, data: str, out: Path, **options: object) -> dpsweep.Begun:
    return dpsweep.init(data, out=out, data_dir=places.data_dir, cache_dir=places.cache_dir, storage=out.parent / "store", **options)


def test_240_protected_drawings_get_a_space_that_is_accepted_without_a_ceiling(places: Places, tmp_path: Path) -> None:
    found = begun(places, drawings(places), tmp_path / "ours.yaml", nominal_examples=240)
    space = load_space(tmp_path / "ours.yaml")
    assert (found.facts.public, found.facts.validation) == ("stock/train", "stock/val")
    assert space.references.ceiling is False
    assert space.trial["stages"]["private"]["expected_batch_size"] == 120
    assert space.trial["subspace"]["examples"] == 9  # as many PUBLIC people as there are
    assert space.search["public_batch_size"].choice == (12,)
    assert (space.sweep.epsilons, space.sweep.trials_per_epsilon, space.sweep.metric) == ((2.0,), 8, "pckh_50")
    text = (tmp_path / "ours.yaml").read_text(encoding="utf-8")
    assert "real people, protected" in text
    assert all(len(line) <= 140 for line in text.splitlines())
    assert "what N buys" in str(found.plan)


def test_coco_form_without_heads_is_scored_by_what_it_gives(places: Places, tmp_path: Path) -> None:
    for name, seed, role in (("ours/train", 1, "PRIVATE"), ("coco/train", 2, "PUBLIC"), ("ours/val", 3, "PUBLIC")):
        drawn_coco.write_people(places.data_dir / name, seed=seed, count=10, role=role)
    found = begun(places, "ours/train", tmp_path / "coco.yaml", nominal_examples=900)
    assert found.facts.metric == "pck_torso_20"
    assert load_space(tmp_path / "coco.yaml").references.ceiling is True


def test_a_skeleton_of_21_joints_gets_a_space(places: Places, tmp_path: Path) -> None:
    skeleton = SKELETONS.get("hand_21")
    for name, seed, role in (("hands/train", 1, "PRIVATE"), ("stock/train", 2, "PUBLIC"), ("hands/val", 3, "PUBLIC")):
        header = DatasetHeader(name=name.replace("/", "-"), role=role, protected=False, origin="drawn", skeleton=skeleton, **SIZE)
        write_shards(places.data_dir / name, drawn_coco.hands(seed=seed, count=8, skeleton=skeleton), header=header)
    found = begun(places, "hands/train", tmp_path / "hands.yaml", nominal_examples=1500)
    assert (found.facts.joints, found.facts.skeleton) == (21, "hand_21")
    assert found.facts.metric.startswith("pck_")


def test_lspet_starts_from_movenet(places: Places, tmp_path: Path, shared_data: Path) -> None:
    (places.data_dir / "models").mkdir(parents=True)
    for file in (shared_data / "models").glob("movenet_thunder*"):
        (places.data_dir / "models" / file.name).symlink_to(file)
    for split, role in (("train", "PRIVATE"), ("val", "PUBLIC")):
        records = json.loads((shared_data / "lspet" / f"{split}.json").read_text(encoding="utf-8"))[:12]
        (tmp_path / f"{split}.json").write_text(json.dumps(records), encoding="utf-8")
        argv = ["data", "import", "hrnet", "--zero-based", "--annotations", str(tmp_path / f"{split}.json"), "--role", role]
        argv += ["--images", str(shared_data / "lspet" / "images"), "--out", str(places.data_dir / "lspet" / split)]
        assert main([*argv, *(["--stand-in"] if role == "PRIVATE" else [])]) == 0
    argv = ["data", "import", "coco", "--annotations", str(shared_data / "coco_mini" / "person_keypoints.json"), "--role", "PUBLIC"]
    assert main([*argv, "--images", str(shared_data / "coco_mini" / "images"), "--out", str(places.data_dir / "coco_mini" / "train")]) == 0
    found = begun(places, "lspet/train", tmp_path / "lspet.yaml", nominal_examples=8500, epsilons=(0.8,))
    model = load_space(tmp_path / "lspet.yaml").trial["model"]
    assert (found.facts.public, found.facts.validation) == ("coco_mini/train", "lspet/val")
    assert (model["weights"], model["head_start"], model["input_height_px"]) == ("models/movenet_thunder", "heatmap", 192)
    assert load_space(tmp_path / "lspet.yaml").trial["subspace"]["examples"] == 142


def test_nothing_is_written_where_the_plan_is_refused(places: Places, tmp_path: Path) -> None:
    drawings(places)
    with pytest.raises(BadInput, match="is PRIVATE, and a PUBLIC dataset is needed"):
        begun(places, "ward", tmp_path / "ours.yaml", validation="ward")
    (tmp_path / "store" / "ours").mkdir(parents=True)
    (tmp_path / "store" / "ours" / "spec.json").write_text("{}", encoding="utf-8")
    with pytest.raises(Refused, match="sweep ours exists"):
        begun(places, "ward", tmp_path / "ours.yaml")
    assert not (tmp_path / "ours.yaml").exists()
    (tmp_path / "ours.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(Refused, match="is not overwritten"):
        begun(places, "ward", tmp_path / "ours.yaml")


def test_without_a_terminal_the_command_says_which_datasets_there_are(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawings(places)
    monkeypatch.chdir(tmp_path)
    argv = ["init", "--data-dir", str(places.data_dir), "--cache-dir", str(places.cache_dir)]
    assert main(argv) == 2
    assert "name the PRIVATE dataset" in (said := capsys.readouterr().err)
    assert "ward" in said
    assert main([*argv, "--data", "ward", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["path"] == "space.yaml"
    assert document["plan"]["worth"]["nominal"] == 12
    assert [one.name for one in datasets_below(places.data_dir)] == ["ward", "stock/train", "stock/val"]


def test_of_several_datasets_the_name_decides_and_else_nothing_is_guessed() -> None:
    assert chosen("validation", ("a/train", "a/val", "synthetic/validation"), None) == "a/val"
    assert chosen("public", ("a/train", "a/val"), "a/val") == "a/train"
    with pytest.raises(BadInput, match="expected one of a/train, b/train"):
        chosen("public", ("a/train", "b/train"), None)


def test_noise_falls_as_one_over_n_at_the_same_sampling_probability() -> None:
    worth = worth_of(240, 0.5, [(2.0, 6.137), (8.0, 2.072)])
    assert worth.sizes == (60, 240, 960, 3840)
    noise = worth.rows[0].noise
    assert noise[1] == pytest.approx(6.137 / 120)
    assert noise[0] == pytest.approx(4 * noise[1])
    assert worth.needed(worth.rows[0]) == 3000
    assert [row.epsilon for row in worth.too_few] == [2.0, 8.0]
    assert worth_of(100_000, 0.06, [(0.8, 2.1)]).too_few == ()
