"""The calibrator: the identity at its start, 88 numbers, and the same in every view."""

from __future__ import annotations

import pytest
import torch

from dpcore.inference.calibrator import TERMS, Calibrator, groups_of
from dpcore.pose.skeleton import COCO_17, MPII_16
from dpcore.privacy.per_example import Batch, GradientEngine


def moved(seed: int = 0) -> Calibrator:
    """One with arbitrary numbers."""
    calibrator, generator = Calibrator(MPII_16), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in calibrator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return calibrator


def maps(size: int = 12) -> torch.Tensor:
    return torch.randn(2, 16, size, size, generator=torch.Generator().manual_seed(3))


def test_it_starts_as_the_identity_and_has_88_numbers() -> None:
    calibrator = Calibrator(MPII_16)
    with torch.no_grad():
        assert torch.equal(calibrator(maps()), maps())
    assert sum(parameter.numel() for parameter in calibrator.parameters()) == 88 == 11 * TERMS


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_crop_has_the_turned_correction(turns: int) -> None:
    calibrator = moved()
    with torch.no_grad():
        turned = calibrator(torch.rot90(maps(), turns, dims=(2, 3)))
        torch.testing.assert_close(turned, torch.rot90(calibrator(maps()), turns, dims=(2, 3)), atol=1e-4, rtol=1e-4)


def test_a_mirrored_person_has_the_mirrored_correction_with_left_and_right_swapped() -> None:
    calibrator, swapped = moved(), list(MPII_16.mirrored)
    with torch.no_grad():
        mirrored = calibrator(maps()[:, swapped].flip(-1))
        torch.testing.assert_close(mirrored, calibrator(maps())[:, swapped].flip(-1), atol=1e-4, rtol=1e-4)


def test_left_and_right_are_one_group() -> None:
    for skeleton in (MPII_16, COCO_17):
        groups = groups_of(skeleton)
        assert all(groups[joint] == groups[other] for joint, other in enumerate(skeleton.mirrored))
        assert sorted(set(groups)) == list(range(max(groups) + 1))
    assert max(groups_of(MPII_16)) == 9


def test_rows_are_those_of_single_examples() -> None:
    engine = GradientEngine(moved(), lambda module, batch: torch.sin(module(batch.inputs)).flatten(1).mean(dim=1))
    batch = Batch(maps(), torch.zeros(2, 16, 2), torch.ones(2, 16, dtype=torch.bool))
    rows = engine.rows(batch)
    single = torch.stack([engine.sum_gradient(batch[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(rows, single, atol=1e-5, rtol=1e-4)
    assert engine.way(batch) in ("book-keeping", "book-keeping without copies")
