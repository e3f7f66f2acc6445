"""joints.mat of LSP and LSPET: two layouts, one base that must be said."""

from pathlib import Path

import numpy as np
import pytest
from imported import import_file
from painted import PLACES, misplaced, painted_person
from scipy.io import savemat

from dpcore.data.shards import ShardSet, open_shards
from dpcore.errors import BadInput
from dpcore.pose.skeleton import LSP_14

JOINTS = np.array([PLACES.get(name, PLACES["upper_neck"]) for name in LSP_14.joints], dtype=float)


def imported(tmp_path: Path, joints: np.ndarray, picture: str, *, first: int = 0, **options: object) -> ShardSet:
    (tmp_path / "images").mkdir(exist_ok=True)
    painted_person().save(tmp_path / "images" / picture, quality=95)
    savemat(tmp_path / "joints.mat", {"joints": joints})
    import_file("lsp", tmp_path / "joints.mat", tmp_path / "images", tmp_path / "out", one_based=bool(first), **options)
    return open_shards(tmp_path / "out")


@pytest.mark.parametrize("first", [0, 1])
def test_all_joints_of_lsp_are_labelled_also_hidden_ones(tmp_path: Path, first: int) -> None:
    hidden = np.arange(14) % 2
    values = np.vstack([(JOINTS + first).T, hidden])[:, :, None]  # (3, 14, 1)
    dataset = imported(tmp_path, values, "im0001.jpg", first=first)
    assert (misplaced(dataset), int(dataset.visible.sum()), dataset.skeleton) == ([], 14, LSP_14)


def test_joints_of_lspet_are_labelled_where_the_file_says_so(tmp_path: Path) -> None:
    said = np.ones(14)
    said[3] = 0
    values = np.column_stack([JOINTS, said])[:, :, None]  # (14, 3, 1)
    dataset = imported(tmp_path, values, "im00001.jpg")
    assert (misplaced(dataset), np.flatnonzero(~dataset.visible[0]).tolist()) == ([], [3])
    assert np.isfinite(dataset.head_size_px).all()  # of the labelled head: neck to head top


def test_mapped_to_mpii_the_neck_is_the_upper_neck(tmp_path: Path) -> None:
    dataset = imported(tmp_path, np.vstack([JOINTS.T, np.zeros(14)])[:, :, None], "im0001.jpg", skeleton="mpii_16")
    assert (misplaced(dataset), int(dataset.visible.sum())) == ([], 16)  # pelvis and thorax are derived


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"\(3, 14, N\), as in LSP, or \(14, 3, N\)"):
        imported(tmp_path, np.zeros((2, 14, 5)), "im0001.jpg")
