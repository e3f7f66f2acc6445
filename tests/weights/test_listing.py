"""Writing folded networks, and the list of what lies in the data directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpcore.config import parse_config
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.model.folded import read_tensors
from dpcore.model.topology import Topology
from dpcore.weights.files import stored_weights, tensors_digest, write_folded
from dpcore.weights.folding import FoldedNetwork, stored_as
from dpcore.weights.listing import KNOWN_WEIGHTS, find_weights, layers_by_stride
from sweeps.cli import main


def network(dtype: str = "float16", **replaced: np.ndarray) -> FoldedNetwork:
    document: dict[str, Any] = {
        "version": 2,
        "model": "tiny",
        "input": "(x - 127.5) / 127.5",
        "input_scale": {"mean": [127.5] * 3, "std": [127.5] * 3},
        "licence": "CC0-1.0",
        "layers": [
            {"name": "stem", "op": "conv", "inputs": ["input"], "shape": [4, 3, 3, 3], "stride": 2, "act": "silu"},
            {"name": "pool", "op": "global_avgpool", "inputs": ["stem"]},
        ],
    }
    rng = np.random.default_rng(5)
    tensors = {"stem.weight": rng.normal(size=(4, 3, 3, 3)), "stem.bias": rng.normal(size=4), **replaced}
    return FoldedNetwork(topology=parse_config(Topology, document), document=document, tensors=stored_as(tensors, dtype))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    stored = write_folded(network(), tmp_path / "models", "tiny")
    assert stored_weights(stored.path).digest == stored.digest
    assert stored_weights(stored.path).topology == stored.topology
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["tiny_fp16.npz", "tiny_layers.json"]
    assert write_folded(network("float32"), tmp_path / "models", "whole").path.with_name("whole_fp32.npz").is_file()


def test_the_same_again_is_left_alone_and_other_weights_are_not_overwritten(tmp_path: Path) -> None:
    write_folded(network(), tmp_path, "tiny")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert write_folded(network(), tmp_path, "tiny").was_there
    for other in (network(**{"stem.bias": np.zeros(4)}), network("float32")):
        with pytest.raises(Refused, match="not overwritten"):
            write_folded(other, tmp_path, "tiny")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_digest_knows_names_shapes_types_and_bytes() -> None:
    values = np.arange(6, dtype=np.float16)
    changed = [values.reshape(2, 3), values.astype(np.float32), values[::-1]]
    cases = [{"a": values}, {"b": values}, {"a": values, "b": values}, *({"a": one} for one in changed)]
    assert len({tensors_digest(tensors) for tensors in cases}) == 6


@pytest.mark.parametrize("value", [70000.0, np.nan, np.inf])
def test_a_number_that_does_not_fit_is_refused_by_its_tensor(value: float) -> None:
    with pytest.raises(BadInput, match=r"tensor stem\.bias"):
        network(**{"stem.bias": np.array([0.0, value, 0, 0])})


def test_damaged_weights_are_listed_with_their_problem(tmp_path: Path) -> None:
    stored = write_folded(network(), tmp_path / "models", "tiny")
    write_folded(network(), tmp_path / "models", "half")
    half = tmp_path / "models" / "half_fp16.npz"
    half.write_bytes(half.read_bytes()[:-40])
    with pytest.raises(Corrupt, match="is damaged"):
        read_tensors(half)
    damaged, whole = find_weights(tmp_path)
    assert (damaged.name, damaged.topology, damaged.licence()) == ("models/half", None, "not stated")
    assert "is damaged" in str(damaged.problem)
    assert (whole.name, whole.digest, whole.licence(), whole.known) == ("models/tiny", stored.digest, "CC0-1.0", None)
    assert layers_by_stride(stored.topology) == {"2 px": ["stem 4"], "whole picture": ["pool 4"]}


def test_weights_in_a_linked_folder_are_found_once(tmp_path: Path) -> None:
    write_folded(network(), tmp_path / "elsewhere", "tiny")
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (data / "models" / "back").symlink_to(data, target_is_directory=True)
    assert [one.name for one in find_weights(data)] == ["models/tiny"]


def test_the_list_says_how_the_known_weights_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_folded(network(), tmp_path / "models", "tiny")
    assert main(["weights", "list", "--data-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "models/tiny" in said
    assert all(command in said for known in KNOWN_WEIGHTS for command in known.commands)
    assert main(["weights", "list", "tiny", "--data-dir", str(tmp_path)]) == 0
    assert "2 px: stem 4" in capsys.readouterr().out
    assert main(["weights", "list", "tiny", "--json", "--data-dir", str(tmp_path)]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["parameters"], document["layers"][0]) == (112, {"name": "stem", "op": "conv", "channels": 4, "stride_px": 2})
    assert main(["weights", "list", "other", "--data-dir", str(tmp_path)]) == 2
    assert "no weights other" in capsys.readouterr().err


def test_a_known_network_is_recognised_by_its_tensors(shared_data: Path) -> None:
    """Lightning of the shared data holds one more array, which is no tensor of a layer."""
    known = {one.name: one.known for one in find_weights(shared_data)}
    assert known["models/movenet_lightning"] is not None
    assert known["models/movenet_lightning"].variant == "lightning"
