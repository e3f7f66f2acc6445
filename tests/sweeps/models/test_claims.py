"""A model that leaves has its claim, its price and its scores beside its weights; one whose claim was cut off says so."""

import json
from pathlib import Path
from types import SimpleNamespace

import fake_trials
import numpy as np
import pytest
import spaces
import torch
from safetensors.torch import save_file

from dpcore.config import Places
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.privacy.claim import PrivacyClaim, claim_of
from sweeps.cli import main
from sweeps.models import evaluation
from sweeps.models.claims import CLAIM_FILE, load_claim, save_claim, warning_about
from sweeps.records.export import UNKNOWN, Price

PRICE = Price(
    accounting="composed", epsilon=7.3719, delta=1e-5, text="sweep epsilon 7.37 at delta 1e-05 (composition of all its trials by PLD)"
)


def claim() -> PrivacyClaim:
    config = spaces.space().trial_config(0.5, {"method": "feature", "split": "blur", "clip_norm": 0.137, "public_weight": 0.7})
    facts = {
        part: SimpleNamespace(name=part, role="PRIVATE" if part == "private" else "PUBLIC", protected=True)
        for part in ("private", "public")
    }
    return claim_of(config, fake_trials.plan(config, None), facts)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    meta = {"pckh_50": 0.4137, "pckh_10": 0.0719, "trial_id": "e0.5-003"}
    config = spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.137}).model_dump(mode="json")
    (folder / "model.json").write_text(json.dumps({"config": config, "weights_digest": "0f3a9c1d22e4b577", "meta": meta}))
    save_file({"w": torch.zeros(3, 7), "b": torch.zeros(5)}, folder / "model.safetensors")
    return folder


def test_claim_price_and_scores_stand_beside_the_weights_and_come_back(model: Path) -> None:
    made = save_claim(model.parent, claim(), PRICE)
    assert load_claim(model) == load_claim(model.parent) == load_claim(model / CLAIM_FILE) == made
    assert made.scores == {"pckh_50": 0.4137, "pckh_10": 0.0719}
    assert warning_about(model) is None


def test_the_command_prints_the_contracts_keys(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_claim(model, claim(), PRICE)
    assert main(["claim", str(model.parent), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"epsilon", "delta", "unit", "relation", "public", "price"} <= set(document)
    assert document["relation"] == "add_remove_given_public_view"
    assert document["price"]["epsilon"] == 7.3719
    assert main(["claim", str(model)]) == 0
    assert "Choosing it: sweep epsilon 7.37" in capsys.readouterr().out


def test_a_model_whose_claim_was_cut_off_says_so(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput, match="its claim was cut off"):
        load_claim(model)
    assert "cut off" in str(warning_about(model))
    assert main(["claim", str(model)]) == 2
    assert "cut off" in capsys.readouterr().err


def test_a_claim_of_other_weights_or_half_a_claim_is_refused(model: Path) -> None:
    save_claim(model, claim(), UNKNOWN)
    file = model / CLAIM_FILE
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(Corrupt, match="does not read"):
        load_claim(model)
    file.write_text(whole.replace("0f3a9c1d22e4b577", "0f3a9c1d22e4b578"))
    with pytest.raises(Corrupt, match="other weights"):
        load_claim(model)
    assert "other weights" in str(warning_about(model))


def test_an_altered_claim_is_noticed_by_its_copies(model: Path) -> None:
    save_claim(model, claim(), PRICE)
    file = model / CLAIM_FILE
    document = json.loads(file.read_text())
    document["claim"]["epsilon"] /= 10
    file.write_text(json.dumps(document))
    with pytest.raises(Corrupt, match=r"its copy in model\.json differ: one was altered"):
        load_claim(model)
    assert "altered" in str(warning_about(model))


def test_a_claim_that_was_cut_off_is_said_with_what_its_copy_says(model: Path) -> None:
    made = save_claim(model, claim(), PRICE)
    (model / CLAIM_FILE).unlink()
    with pytest.raises(BadInput, match="its claim was cut off") as cut_off:
        load_claim(model)
    assert made.claim.headline() in str(cut_off.value)


def test_a_claim_saved_again_replaces_its_copies(model: Path) -> None:
    save_claim(model, claim(), UNKNOWN)
    made = save_claim(model, claim(), PRICE)
    assert load_claim(model) == made
    assert json.loads((model / "model.json").read_text())["claim"]["price"]["epsilon"] == 7.3719


def test_a_claim_of_an_earlier_version_has_no_copy_and_is_read(model: Path) -> None:
    before = (model / "model.json").read_text()
    made = save_claim(model, claim(), PRICE)
    (model / "model.json").write_text(before)
    assert load_claim(model) == made


def test_the_card_says_claim_price_scores_data_and_how_to_load(model: Path) -> None:
    made = save_claim(model, claim(), PRICE)
    card = (model / "README.md").read_text(encoding="utf-8")
    for words in (
        made.claim.headline(),
        made.claim.paragraph(),
        PRICE.text,
        "41.37 %",
        "`synthetic/private`",
        "26 parameters",
        "64 × 64 px",
    ):
        assert words in card
    assert "The private data are protected" in card
    assert "What the public views show was not measured." in card
    assert "dpsweep predict ." in card


def test_the_card_of_a_network_from_elsewhere_says_that_its_code_is_needed(model: Path) -> None:
    document = json.loads((model / "model.json").read_text())
    document["config"]["model"]["backbone"] = "my_network:build"
    (model / "model.json").write_text(json.dumps(document))
    save_claim(model, claim(), PRICE)
    assert "needs the code of `my_network:build`" in (model / "README.md").read_text(encoding="utf-8")


def test_a_run_without_privacy_on_protected_people_may_not_leave(model: Path) -> None:
    made = save_claim(model, claim(), PRICE)
    made.check_may_leave("m")
    infinite = claim().model_copy(update={"epsilon": None, "no_guarantee": "its ε is infinite."})
    with pytest.raises(Refused, match="neither exported nor registered"):
        made.model_copy(update={"claim": infinite}).check_may_leave("m")
    made.model_copy(update={"claim": infinite.model_copy(update={"stand_in": True})}).check_may_leave("m")


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no model there"):
        load_claim(tmp_path)


def test_what_a_model_spent_whose_claim_was_cut_off_is_not_known(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = SimpleNamespace(network=None, config=None, skeleton=None, meta={"epsilon_spent": 0.4971})
    monkeypatch.setattr(evaluation, "load_model", lambda folder: saved)
    public = SimpleNamespace(manifest=SimpleNamespace(protected=False), as_skeleton=lambda skeleton: None)
    monkeypatch.setattr(evaluation, "open_dataset", lambda name, places: public)
    monkeypatch.setattr(evaluation, "_scored", lambda *given, **heard: SimpleNamespace(truth=None))
    monkeypatch.setattr(evaluation, "why_not", lambda *given: None)
    monkeypatch.setattr(evaluation, "_scores", lambda scored: {})
    monkeypatch.setattr(evaluation, "counts_of_people", lambda *given: np.array([[1, 2], [2, 2]]))
    places = Places(data_dir=tmp_path, cache_dir=tmp_path)
    assert evaluation.score_model(model, "d", places).meta["epsilon_spent"] is None
    assert "its claim was cut off" in capsys.readouterr().err
    save_claim(model, claim(), PRICE)
    assert evaluation.score_model(model, "d", places).meta["epsilon_spent"] == 0.4971
    assert capsys.readouterr().err == ""
