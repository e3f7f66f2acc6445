"""Weights from files: whole or refused, and nothing in a file is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpcore.config import Places
from dpcore.errors import BadInput, Corrupt
from dpcore.model.outside.weight_files import fit, read_weights, weights_path


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def state(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    full = {name: torch.full_like(tensor, 0.37) for name, tensor in network().state_dict().items() if "num_batches" not in name}
    return {**full, **more}


def fitted(module: nn.Module, given: dict[str, torch.Tensor], *left_out: str) -> tuple[str, ...]:
    return fit(module, given, source="w.pth", rename={}, elsewhere=("fc.weight",), left_out=left_out).lines()


def test_every_tensor_is_set_and_the_report_counts_them() -> None:
    module = network()
    assert fitted(module, state()) == ("w.pth: 6 tensors loaded",)
    assert float(module[1].running_var[2]) == pytest.approx(0.37)  # type: ignore[index, union-attr]


def test_a_classifier_is_left_out_by_name_and_a_stranger_only_where_it_is_named() -> None:
    more = {"fc.weight": torch.ones(2), "aux.head.bias": torch.ones(2), "aux.head.weight": torch.ones(2)}
    with pytest.raises(BadInput, match=r"2 tensors have no place .*weights_left_out: \['aux\.\*'\]"):
        fitted(network(), state(**more))
    lines = fitted(network(), state(**more), "aux.*")
    assert lines[1] == "w.pth: 3 tensors left out (aux.head.bias, aux.head.weight, fc.weight)"


@pytest.mark.parametrize(("name", "value"), [("0.weight", None), ("1.running_mean", None), ("0.bias", torch.ones(5))])
def test_a_missing_or_misshapen_tensor_is_refused_by_name(name: str, value: torch.Tensor | None) -> None:
    given = {key: tensor for key, tensor in state().items() if key != name}
    module, before = network(), None
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(BadInput, match=name.replace(".", r"\.")):
        fitted(module, given if value is None else {**given, name: value})
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_pth_files_are_read_with_or_without_the_usual_container(tmp_path: Path, container: str | None) -> None:
    document = state() if container is None else {container: state(), "epoch": 7}
    torch.save(document, tmp_path / "w.pth")
    assert set(read_weights(tmp_path / "w.pth")) == set(state())


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_a_pth_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"0.weight": Payload()}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="more than tensors"):
        read_weights(tmp_path / "w.pth")
    assert capsys.readouterr().out == ""


def test_two_sets_of_weights_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    torch.save({"model": state(), "model_ema": state()}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="several sets of weights"):
        read_weights(tmp_path / "w.pth")


def test_a_file_that_is_cut_off_or_missing_is_named(tmp_path: Path, places: Places) -> None:
    save_file(state(), tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    with pytest.raises(Corrupt, match=r"w\.safetensors"):
        read_weights(tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match="is not there"):
        weights_path("none.pth", places)
    with pytest.raises(BadInput, match=r"expected a \.safetensors or \.pth file"):
        weights_path("none.ckpt", places)
