"""Folded networks: topology, padding, input scale, loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from dpcore.config import ModelConfig, Places
from dpcore.errors import BadInput, Corrupt
from dpcore.gradients.plain import ReadsChannelsLast
from dpcore.model.folded import FoldedFeatures, load_folded
from dpcore.model.network import build_network, weights_digest
from dpcore.model.topology import Topology, read_topology

MOVENET_LAYERS = ("b2.add", "b5.add", "b12.add", "fpn4.pw", "heat.out", "fpn8.pw", "center.out")


def _topology() -> dict[str, object]:
    return {
        "model": "tiny",
        "input": "RGB 0..255 -> x/127.5-1",
        "layers": [
            {"name": "stem", "op": "conv", "inputs": ["input"], "shape": [4, 3, 3, 3], "stride": 2, "act": "relu6"},
            {"name": "dw", "op": "dwconv", "inputs": ["stem"], "shape": [4, 1, 3, 3], "stride": 2, "act": None},
            {"name": "up", "op": "upsample2x_bilinear", "inputs": ["dw"]},
            {"name": "sum", "op": "add", "inputs": ["up", "stem"]},
            {"name": "unused", "op": "conv", "inputs": ["sum"], "shape": [9, 4, 1, 1], "stride": 1, "act": None},
        ],
    }


def _write(folder: Path, **replaced: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    tensors = {
        "stem.weight": rng.normal(size=(4, 3, 3, 3)),
        "stem.bias": rng.normal(size=4),
        "dw.weight": rng.normal(size=(4, 1, 3, 3)),
        **replaced,
    }
    np.savez(folder / "tiny_fp16.npz", **{name: values.astype(np.float16) for name, values in tensors.items()})
    (folder / "tiny_layers.json").write_text(json.dumps(_topology()))
    return folder / "tiny"


def test_stride_two_pads_right_and_below_as_tensorflow_does(tmp_path: Path) -> None:
    features = load_folded(_write(tmp_path), ("stem",))
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    convolution = features.convolutions["stem"]
    expected = functional.conv2d(functional.pad(images, (0, 1, 0, 1)), convolution.weight, convolution.bias, stride=2).clamp(0, 6)
    found = features(images)
    torch.testing.assert_close(found, functional.adaptive_avg_pool2d(expected, (2, 2)))


def test_features_are_concatenated_in_the_order_asked_on_a_grid_of_stride_eight(tmp_path: Path) -> None:
    features = load_folded(_write(tmp_path), ("sum", "stem"))
    assert features.channels() == {"sum": 4, "stem": 4}
    assert features(torch.zeros(2, 3, 32, 16)).shape == (2, 8, 4, 2)


def test_layers_that_no_feature_needs_are_left_out(tmp_path: Path) -> None:
    features = load_folded(_write(tmp_path), ("stem",))
    assert [layer.name for layer in features.topology.layers] == ["stem"]


def test_a_bias_that_the_archive_leaves_out_is_zero(tmp_path: Path) -> None:
    features = load_folded(_write(tmp_path), ("dw",))
    assert torch.equal(features.convolutions["dw"].bias, torch.zeros(4))  # type: ignore[arg-type]


@pytest.mark.parametrize(("line", "at_0", "at_255"), [("x/127.5-1", -1.0, 1.0), ("(x-127)/128", -127 / 128, 1.0)])
def test_input_line_maps_pixels_as_it_says(line: str, at_0: float, at_255: float) -> None:
    scale, shift = Topology.model_validate({**_topology(), "input": line}).input_affine()
    assert shift - scale == pytest.approx(at_0)
    assert shift + scale == pytest.approx(at_255)


def test_an_input_line_in_other_words_is_refused() -> None:
    with pytest.raises(BadInput, match="not understood"):
        Topology.model_validate({**_topology(), "input": "BGR"}).input_affine()


def test_another_input_scale_is_another_network_for_every_cache(tmp_path: Path) -> None:
    """Caches are named by the digest of the state, and the weights alone are equal here."""
    digests = set()
    for std in (57.0, 58.0):
        scale = {"mean": [120, 117, 104], "std": [std, std, std]}
        weights = _write(tmp_path / str(std))
        document = {**_topology(), "version": 2, "input_scale": scale}
        weights.with_name("tiny_layers.json").write_text(json.dumps(document), encoding="utf-8")
        digests.add(weights_digest(load_folded(weights, ("stem",)).state_dict()))
    assert len(digests) == 2
    version_1 = load_folded(_write(tmp_path / "old"), ("stem",))
    assert set(version_1.state_dict()) == {"convolutions.stem.weight", "convolutions.stem.bias"}


def test_a_channel_order_and_a_scale_for_each_channel_are_applied(tmp_path: Path) -> None:
    weights = _write(tmp_path)
    scale = {"mean": [120.5, 117, 104], "std": [58, 57.5, 57], "order": "BGR"}
    weights.with_name("tiny_layers.json").write_text(json.dumps({**_topology(), "version": 2, "input_scale": scale}), encoding="utf-8")
    features = load_folded(weights, ("stem",))
    pixels = torch.randint(0, 256, (2, 3, 16, 8), generator=torch.Generator().manual_seed(4)).float()
    scaled = (pixels.flip(1) - torch.tensor(scale["mean"])[:, None, None]) / torch.tensor(scale["std"])[:, None, None]
    convolution = features.convolutions["stem"]
    expected = functional.conv2d(functional.pad(scaled, (0, 1, 0, 1)), convolution.weight, convolution.bias, stride=2).clamp(0, 6)
    torch.testing.assert_close(features.maps(pixels / 127.5 - 1)["stem"], expected, rtol=1e-4, atol=1e-4)


def test_missing_files_layers_and_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no topology"):
        load_folded(tmp_path / "nothing", ("stem",))
    weights = _write(tmp_path)
    with pytest.raises(BadInput, match="no layer top"):
        load_folded(weights, ("top",))
    _write(tmp_path, **{"stem.weight": np.zeros((4, 3, 1, 1))})
    with pytest.raises(Corrupt, match=r"stem\.weight has shape"):
        load_folded(weights, ("stem",))


def test_folded_network_trains_its_head_and_keeps_its_backbone(tmp_path: Path, places: Places) -> None:
    _write(places.data_dir / "models")
    config = ModelConfig(backbone="folded", weights="models/tiny", feature_layers=("sum", "stem"), freeze="backbone")
    network = build_network(config, places, generator=torch.Generator().manual_seed(0))
    split = network.split("backbone")
    assert isinstance(network.parts["early"], FoldedFeatures)
    assert {name for name, _ in split.tail.named_parameters()} == {f"0.{n}" for n, _ in network.parts["head"].named_parameters()}
    with pytest.raises(BadInput, match="no last block"):
        network.split("early")
    assert any(isinstance(part, ReadsChannelsLast) for part in network.split("none").tail.modules())


def test_efficientnet_finds_its_topology_under_the_shorter_stem_and_scales_its_own_way(shared_data: Path) -> None:
    weights = shared_data / "models" / "efficientnet_lite0_imagenet"
    assert read_topology(weights).input_affine()[1] == pytest.approx(127.5 / 128 - 127 / 128)
    features = load_folded(weights, ("b4.add", "b10.add"))
    assert features(torch.zeros(1, 3, 64, 64)).shape == (1, 152, 8, 8)


def test_movenet_finds_a_real_person_without_training(shared_data: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    places = Places(data_dir=shared_data, cache_dir=shared_data)
    config = ModelConfig(
        backbone="folded",
        weights="models/movenet_lightning",
        feature_layers=MOVENET_LAYERS,
        head_start="heatmap",
        freeze="backbone",
        input_height_px=192,
        input_width_px=192,
        split_ratio=0.5,
    )
    network = build_network(config, places, generator=torch.Generator().manual_seed(0)).eval()
    records = json.loads((shared_data / "lspet" / "val.json").read_text())[:40]
    hits = []
    for record in records:
        picture = image_module.open(shared_data / "lspet" / "images" / record["image"]).convert("RGB")
        scale = 192 / max(picture.size)
        canvas = image_module.new("RGB", (192, 192))
        canvas.paste(picture.resize((round(picture.width * scale), round(picture.height * scale))))
        tensor = torch.from_numpy(np.array(canvas)).permute(2, 0, 1)[None].float() / 127.5 - 1
        with torch.no_grad():
            logits_x, logits_y = network(tensor)
        found = np.stack([logits_x.argmax(-1)[0].numpy(), logits_y.argmax(-1)[0].numpy()], axis=-1) * 2.0 + 0.5
        distance = np.linalg.norm(found - np.array(record["joints"]) * scale, axis=-1)
        hits += list((distance <= 0.5 * record["head_size"] * scale)[np.array(record["joints_vis"]) > 0])
    assert np.mean(hits) > 0.35
