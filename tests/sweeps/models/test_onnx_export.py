"""An ONNX file gives torch's keypoints for any number of crops, carries the claim, and is not written where it gives others."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from saved_models import save_network

from dpcore.config import EvaluationConfig, ModelConfig, Places
from dpcore.config.parsing import parse_config
from dpcore.data.synthetic import draw_record
from dpcore.errors import BadInput, Refused, Unavailable
from dpcore.inference.movenet import MOVENET_LAYERS
from sweeps.cli import main
from sweeps.models import onnx_export
from sweeps.models.claims import load_claim
from sweeps.models.keypoints.estimator import Keypoints, PoseEstimator
from sweeps.models.onnx_export import CropsToKeypoints, OnnxCheck, export_onnx

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, OnnxCheck]:
    """A model, its ONNX file and what was measured; torch takes seconds to make one."""
    folder = tmp_path_factory.mktemp("onnx")
    model = save_network(folder / "model", Places(data_dir=folder, cache_dir=folder))
    return model, folder / "m.onnx", export_onnx(model, folder / "m.onnx", load_claim(model))


def test_keypoints_and_scores_are_those_of_predict_for_any_number_of_crops(exported: tuple[Path, Path, OnnxCheck]) -> None:
    model, file, check = exported
    assert max(check.random_px, check.people_px) < 0.01
    session = onnxruntime.InferenceSession(file)
    crops = np.stack([draw_record("private", seed=11, index=index).image for index in range(5)])
    wanted = PoseEstimator.load(model).of_crops(crops)
    for count in (1, 3, 5):
        points, scores = session.run(["keypoints_px", "scores"], {"images": crops[:count]})
        assert np.abs(points - wanted.points[:count]).max() < 0.01
        assert np.abs(scores - wanted.scores[:count]).max() < 1e-4


@pytest.mark.parametrize("evaluation", [EvaluationConfig(), EvaluationConfig(flip=True)], ids=["one", "flip"])
def test_the_module_that_is_exported_is_predict_with_its_flip_test(evaluation: EvaluationConfig, places: Places, tmp_path: Path) -> None:
    model = save_network(tmp_path / "model", places, evaluation=evaluation)
    estimator = PoseEstimator.load(model)
    crops = np.stack([draw_record("private", seed=11, index=index).image for index in range(3)])
    module = CropsToKeypoints(estimator.saved.network, estimator.reading)
    with torch.no_grad():
        points, _ = module(torch.from_numpy(crops))
    assert np.abs(points.numpy() - estimator.of_crops(crops).points).max() < 1e-3


@pytest.mark.slow
def test_views_are_turned_and_fused_within_the_graph(places: Places, tmp_path: Path) -> None:
    evaluation = EvaluationConfig(rotations_deg=(90, 33), fuse="maps", temperature=0.7)
    model = save_network(tmp_path / "model", places, evaluation=evaluation)
    check = export_onnx(model, tmp_path / "m.onnx", load_claim(model))
    assert max(check.random_px, check.people_px) < 0.01


@pytest.fixture(scope="module")
def little_movenet(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """Places with a folded network of random weights and MoveNet's four outputs, at stride 4."""
    folder, generator = tmp_path_factory.mktemp("folded"), np.random.default_rng(3)
    shapes = {"stem": (6, 3, 5, 5), **{name: (channels, 6, 1, 1) for name, channels in MOVENET_LAYERS.items()}}
    layers = [
        {
            "name": name,
            "op": "conv",
            "inputs": ["input" if name == "stem" else "stem"],
            "shape": shape,
            "stride": 4 if name == "stem" else 1,
            "act": "relu6" if name == "stem" else None,
        }
        for name, shape in shapes.items()
    ]
    tensors = {f"{name}.weight": generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tensors |= {f"{name}.bias": np.zeros(shape[0], dtype=np.float32) for name, shape in shapes.items()}
    (folder / "models").mkdir()
    np.savez(folder / "models" / "little_fp32.npz", **tensors)  # type: ignore[arg-type]
    (folder / "models" / "little_layers.json").write_text(json.dumps({"model": "little", "input": "x/127.5-1", "layers": layers}))
    return Places(data_dir=folder, cache_dir=folder / "cache")


@pytest.mark.slow
@pytest.mark.parametrize("head", ["movenet", "movenet_mixed", "calibrator", "keypoints"])
def test_networks_that_start_from_movenet_have_a_graph_of_any_number_of_crops(head: str, little_movenet: Places, tmp_path: Path) -> None:
    """Those of the preset lspet among them, which asks in bfloat16: ONNX Runtime has no convolution for that."""
    # of nine bins on four px none ends in the middle of a cell, where torch and ONNX Runtime may choose different ones
    asks = {"asked": {"precision": "bf16", "second_look": {"side_px": 96}}, "split_ratio": 2.25}
    values = {
        "backbone": "folded" if head != "keypoints" else "keypoints",
        "weights": "models/little",
        "feature_layers": tuple(MOVENET_LAYERS),
        "head": head,
        "freeze": "backbone",
        "input_height_px": 64,
        "input_width_px": 64,
        **({"feature_stride_px": 4} if head != "keypoints" else asks),
    }
    evaluation = EvaluationConfig() if head == "keypoints" else EvaluationConfig(flip=True, fuse="maps")
    model = save_network(tmp_path / "model", little_movenet, model=parse_config(ModelConfig, values), evaluation=evaluation)
    check = export_onnx(model, tmp_path / "m.onnx", load_claim(model))
    assert max(check.random_px, check.people_px) < 0.05
    assert check.in_float32 == (head == "keypoints")
    assert ("both in float32" in check.text()) == check.in_float32
    crops = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for count in (1, 5):
        assert session.run(["keypoints_px"], {"images": crops[:count]})[0].shape == (count, 16, 2)


def test_a_graph_that_onnx_runtime_does_not_run_is_not_written(
    exported: tuple[Path, Path, OnnxCheck], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file, _ = exported
    content = _of_two_crops(file)
    monkeypatch.setattr(onnx_export, "_graph", lambda *given: content)
    with pytest.raises(Refused, match=r"does not run this network's graph .* nothing was written"):
        export_onnx(model, tmp_path / "m.onnx", load_claim(model))
    assert not (tmp_path / "m.onnx").exists()


def _of_two_crops(file: Path) -> bytes:
    """The graph, for batches of two alone."""
    graph = onnx.load(file)
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    content: bytes = graph.SerializeToString()
    return content


def test_claim_and_joints_travel_in_the_file(exported: tuple[Path, Path, OnnxCheck]) -> None:
    model, file, _ = exported
    graph = onnx.load(file)
    texts = {entry.key: entry.value for entry in graph.metadata_props}
    made = load_claim(model)
    assert json.loads(texts["claim"]) == made.model_dump(mode="json")
    assert made.claim.headline() in texts["claim_text"]
    assert json.loads(texts["joints"])[9] == "head_top"
    assert [entry.version for entry in graph.opset_import if entry.domain in ("", "ai.onnx")] == [onnx_export.OPSET]
    assert str(model.parent).encode() not in file.read_bytes()


def test_the_command_says_the_difference_and_overwrites_nothing(
    exported: tuple[Path, Path, OnnxCheck], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, file, _ = exported
    monkeypatch.setattr(onnx_export, "_graph", lambda *given: file.read_bytes())
    for code in (0, 2):
        assert main(["export", str(model), "--onnx", str(tmp_path / "m.onnx")]) == code
    shown = capsys.readouterr()
    assert "opset 18; largest difference from torch: " in shown.out
    assert "not overwritten" in shown.err


def test_a_file_that_gives_other_keypoints_is_not_written(
    exported: tuple[Path, Path, OnnxCheck], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file, _ = exported
    whole = PoseEstimator.of_crops

    def shifted(self: PoseEstimator, crops: np.ndarray) -> Keypoints:
        found = whole(self, crops)
        return replace(found, points=found.points + 0.07)

    monkeypatch.setattr(onnx_export, "_graph", lambda *given: file.read_bytes())
    monkeypatch.setattr(PoseEstimator, "of_crops", shifted)
    with pytest.raises(Refused, match=r"other keypoints than torch .*0\.07 px on people.* nothing was written"):
        export_onnx(model, tmp_path / "m.onnx", load_claim(model))
    assert not (tmp_path / "m.onnx").exists()


def test_a_missing_library_and_a_missing_folder_are_told_before_any_work(
    claimed_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(claimed_model), "--onnx", str(tmp_path / "none" / "m.onnx")]) == BadInput.exit_code
    assert "there is no folder" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unavailable, match=r"onnxruntime is not installed; `pip install 'dpsweep\[onnx\]'`"):
        export_onnx(claimed_model, tmp_path / "m.onnx", load_claim(claimed_model))
