"""What the safe pass changes, what it leaves, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dpcore.errors import Refused
from dpcore.model.safety.batch_norm import FrozenNorm
from dpcore.model.safety.in_place import Chain
from dpcore.model.safety.report import SafetyReport
from dpcore.model.safety.safe_pass import difference, make_safe, outputs_of


class Residual(nn.Module):
    """Writes `+=`, as most networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn(self.conv(x))
        y += x
        outputs: Tensor = self.act(y)
        return outputs


class ReadTwice(nn.Module):
    """Reads what its convolution gives beside the BatchNorm: that one cannot be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        outputs: Tensor = self.bn(y) + y
        return outputs


def trained_alike(network: nn.Module, seed: int = 3) -> nn.Module:
    """Statistics, gains and biases as training would leave them: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -2.0, 2.0), (module.running_var, 0.3, 4.0), (module.weight, -1.5, 1.5)):
                with torch.no_grad():
                    tensor.uniform_(low, high, generator=generator)  # type: ignore[union-attr]
    return network


def images(count: int = 2, side: int = 9) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(7)) * 2 - 1


def small() -> nn.Module:
    return trained_alike(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), Residual(), nn.Dropout(0.3), nn.BatchNorm2d(5)))


@pytest.mark.parametrize("rule", ["fold", "frozen"])
def test_outputs_stay_and_training_mode_gives_the_same(rule: str) -> None:
    network = small().eval()
    before = outputs_of(network, images())
    safe = make_safe(network, images(), batch_norm=rule)  # type: ignore[arg-type]
    assert difference(outputs_of(safe.module, images()), before) < 1e-5
    assert difference(outputs_of(safe.module.train(), images()), before) < 1e-5
    assert not [m for m in safe.module.modules() if isinstance(m, nn.BatchNorm2d)]


def test_the_report_names_what_was_done() -> None:
    report = make_safe(small(), images(), batch_norm="fold").report
    assert report.folded == {"1": "0", "2.bn": "2.conv"}
    assert report.frozen_statistics == ("4",)
    assert report.not_in_place == ("2.act",)
    assert report.not_random == ("3",)
    assert any("x += y" in line for line in report.lines())
    assert SafetyReport.of_document(report.document()) == report


def test_group_norm_keeps_gain_and_bias_and_gives_other_outputs() -> None:
    network = small().eval()
    before, gain = outputs_of(network, images()), network[1].weight.clone()  # type: ignore[index, union-attr, operator]
    safe = make_safe(network, images(), batch_norm="group_norm")
    assert torch.equal(safe.module[1].weight, gain)  # type: ignore[index, arg-type]
    assert safe.report.group_norms == ("1", "2.bn", "4")
    assert difference(outputs_of(safe.module, images()), before) > 1e-2


def test_a_batch_norm_whose_input_is_read_elsewhere_is_not_folded() -> None:
    network = trained_alike(ReadTwice()).eval()
    before = outputs_of(network, images())
    safe = make_safe(network, images(), batch_norm="fold")
    assert safe.report.frozen_statistics == ("bn",)
    assert difference(outputs_of(safe.module, images()), before) < 1e-5


def test_a_frozen_norm_has_the_gradients_of_its_batch_norm() -> None:
    norm = trained_alike(nn.Sequential(nn.BatchNorm2d(5)))[0].eval()  # type: ignore[index]
    frozen = FrozenNorm.of(norm)
    maps = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    for module in (norm, frozen):
        module(maps).pow(2).sum().backward()
    torch.testing.assert_close(frozen.affine.weight.grad.flatten(), norm.weight.grad)
    torch.testing.assert_close(frozen.affine.bias.grad, norm.bias.grad)


def test_inside_a_chain_in_place_sums_make_new_tensors() -> None:
    block = make_safe(Residual(), torch.rand(2, 5, 7, 7) - 0.3, batch_norm="fold")
    assert block.out_of_place
    kept: list[Tensor] = []
    block.module.conv.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    Chain([block.module])(torch.ones(1, 5, 7, 7))
    Chain([block.module], out_of_place=True)(torch.ones(1, 5, 7, 7))
    assert kept[0]._version == 1
    assert kept[1]._version == 0


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean += x.mean()
        return x


class Jitters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 if self.training else x


@pytest.mark.parametrize(
    ("layer", "reason"), [(Remembers(), "keeps something of its batches: buffers 1.mean"), (Jitters(), r"other outputs .*\(1\)")]
)
def test_a_layer_that_differs_in_training_mode_is_refused_by_name(layer: nn.Module, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        make_safe(nn.Sequential(nn.Conv2d(3, 4, 1), layer), images(), batch_norm="fold")


def test_a_batch_norm_without_statistics_can_only_become_a_group_norm() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(Refused, match=r"model.batch_norm: group_norm"):
        make_safe(network, images(), batch_norm="fold")
    assert make_safe(network, images(), batch_norm="group_norm").report.group_norms == ("1",)


def test_parameters_that_the_output_does_not_need_are_found() -> None:
    class Spare(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 4, 1))
            self.spare = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = self[0](x)
            return outputs

    assert make_safe(Spare(), images(), batch_norm="fold").report.unused == ("spare.weight", "spare.bias")
