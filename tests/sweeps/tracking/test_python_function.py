"""A registered model is a Python function of MLflow's: pictures in, keypoints out, without the sweep's folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from saved_models import save_network

import dpsweep
from dpcore.config import Places
from dpcore.data.synthetic import draw_record
from dpcore.errors import BadInput, Refused
from sweeps.models.claims import load_claim
from sweeps.models.python_function import _load_pyfunc
from sweeps.tracking.default_store import make_default_store
from sweeps.tracking.mlflow_model import write_model_folder

LOADED = """
import json, sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy as np
from PIL import Image
model = mlflow.pyfunc.load_model("models:/kept@best-eps-0_5")
paths = sys.argv[1:]
arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
batch = np.stack([arrays[0], arrays[0][::-1]])
found = {
    "paths": model.predict(paths), "arrays": model.predict(arrays), "batch": model.predict(batch)[:1],
    "example": model.predict(model.input_example), "served": model.predict(json.loads(json.dumps([arrays[0].tolist()]))),
}
print(json.dumps({name: value.tolist() for name, value in found.items()}))
"""


@pytest.fixture
def trained(places: Places, tmp_path: Path) -> Path:
    """A trial's model with its claim."""
    return save_network(tmp_path / "trial" / "model", places)


def event(model: Path) -> dict[str, object]:
    return {"model": str(model), "config": "a: 1\n", "height_px": 64, "width_px": 64, "tags": {"trial_id": "t"}, "protected": False}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two synthetic people of unlike sizes."""
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for index, (path, size) in enumerate(zip(paths, ((90, 71), (64, 130)), strict=True)):
        Image.fromarray(draw_record("private", seed=3, index=index).image).resize(size).save(path)
    return paths


def test_a_version_from_the_registry_predicts_as_the_command_does_in_a_process_of_its_own(
    trained: Path, pictures: list[Path], tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    make_default_store(tmp_path / "mlflow.db")
    client = MlflowClient(uri, uri)
    experiment = client.create_experiment("kept", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment)
    folder = tmp_path / "written"
    folder.mkdir()
    write_model_folder(folder, event(trained), run_id=run.info.run_id)
    client.log_artifacts(run.info.run_id, str(folder), "model")
    client.create_registered_model("kept")
    version = client.create_model_version("kept", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("kept", "best-eps-0_5", version.version)
    wanted = dpsweep.predict("models:/kept@best-eps-0_5", pictures, tracking_uri=uri)
    assert wanted.warning is None
    trained.rename(tmp_path / "gone")

    command = [sys.executable, "-c", LOADED, *map(str, pictures)]
    environment = {"MLFLOW_TRACKING_URI": uri, "PATH": "", "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {name: np.array(value) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    expected = np.stack([np.column_stack([person.keypoints, person.scores]) for person in wanted.people])
    assert found["example"].shape == (1, 16, 3)
    for name in ("paths", "arrays", "batch", "served"):
        assert np.abs(found[name] - expected[: len(found[name])]).max() < 1e-4, name
    assert "cut off" not in done.stderr


def test_a_model_whose_claim_was_cut_off_says_so_when_it_is_loaded(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "version").mkdir()
    write_model_folder(tmp_path / "version", event(trained), run_id="r")
    _load_pyfunc(str(tmp_path / "version"), {"device": "cpu"})
    assert capsys.readouterr().err == ""
    (tmp_path / "version" / "claim.json").unlink()
    _load_pyfunc(str(tmp_path / "version"))
    assert "its claim was cut off" in capsys.readouterr().err


def test_boxes_of_a_table_are_those_of_the_command(trained: Path, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("image,x,y,w,h\na.png,10,5.5,40,60\n")
    wanted = dpsweep.predict(trained, pictures, boxes=tmp_path / "boxes.csv").people[0]
    table = {"image": [str(pictures[0])], "x": [10], "y": [5.5], "w": [40], "h": [60]}
    found = _load_pyfunc(str(trained)).predict(table)
    assert np.abs(found[0, :, :2] - wanted.keypoints).max() < 1e-4
    assert _load_pyfunc(str(trained)).predict([]).shape == (0, 16, 3)


def test_requirements_are_pinned_and_only_what_was_named_leaves(trained: Path, tmp_path: Path) -> None:
    (trained / "sweep.key").write_text("secret")
    (tmp_path / "version").mkdir()
    write_model_folder(tmp_path / "version", event(trained), run_id="r")
    lines = (tmp_path / "version" / "requirements.txt").read_text().splitlines()
    assert "dpsweep" in {line.partition("==")[0] for line in lines}
    assert all("==" in line and "+" not in line for line in lines)
    assert not (tmp_path / "version" / "sweep.key").exists()
    assert load_claim(tmp_path / "version") == load_claim(trained)


def test_a_version_needs_its_claim_and_a_guarantee_where_people_are_protected(trained: Path, tmp_path: Path) -> None:
    whole = (trained / "claim.json").read_bytes()
    (trained / "claim.json").unlink()
    with pytest.raises(BadInput, match="cut off"):
        write_model_folder(tmp_path, event(trained), run_id="r")
    (trained / "claim.json").write_bytes(whole)
    for name in ("claim.json", "model.json"):
        document = json.loads((trained / name).read_text())
        claim = (document["claim"] if name == "model.json" else document)["claim"]
        claim |= {"epsilon": None, "no_guarantee": "its ε is infinite.", "stand_in": False}
        (trained / name).write_text(json.dumps(document))
    with pytest.raises(Refused, match="neither exported nor registered"):
        write_model_folder(tmp_path, event(trained), run_id="r")
