"""Pictures of a dataset's crops, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import Places, SplitConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dpcore.data.shards import ShardSet

SHEETS = "sheets"
"""Kind of the cache entries with contact sheets."""


def draw_crops(name: str, places: Places, *, sheet: Path | None = None, show_private: bool = False) -> Path | None:
    """Draws a dataset's first crops with their labels into `sheet`, or into the cache.

    Args:
        name: of the dataset.
        places: data and cache folders.
        sheet: the PNG; None: one in the cache, which `dpsweep data purge` removes.
        show_private: draw protected people too. Needs `sheet`.

    Returns:
        The PNG; None for protected people who are not to be shown.

    Raises:
        BadInput: there is no such dataset, or `show_private` without `sheet`.
        Refused: `sheet` for protected people without `show_private`.
    """
    from dpcore.data.catalog import open_dataset
    from dpcore.errors import BadInput
    from sweeps.models.keypoints.crops_sheet import save_sheet

    dataset = open_dataset(name, places)
    if sheet is not None:
        return save_sheet(dataset, sheet, show_private=show_private)
    if show_private:
        raise BadInput("--show-private needs --sheet FILE.png: pictures of protected people lie only where you want them")
    return None if dataset.manifest.protected else _cached_sheet(dataset, places)


def _cached_sheet(dataset: ShardSet, places: Places) -> Path:
    from dpcore.data.folders import cached_folder
    from dpcore.data.views import META_NAME
    from dpcore.durable import write_json
    from sweeps.models.keypoints.crops_sheet import save_sheet

    def build(folder: Path) -> None:
        save_sheet(dataset, folder / "crops.png")
        write_json(folder / META_NAME, {"datasets": [dataset.identity]})

    entry = places.cache_dir / SHEETS / dataset.identity[:16]
    return cached_folder(entry, build, private=dataset.manifest.role == "PRIVATE") / "crops.png"


PREVIEWED = (
    SplitConfig(name="blur_3", transform="gaussian_blur", sigma_px=3.0),
    SplitConfig(name="blur_10", transform="gaussian_blur", sigma_px=10.0),
    SplitConfig(name="pixels_8", transform="pixelate", cell_px=8),
    SplitConfig(name="head_8", transform="pixelate", cell_px=8, region="head"),
    SplitConfig(name="background_8", transform="pixelate", cell_px=8, region="background"),
)
"""Splits of a preview without a space."""


def preview_dataset(
    name: str, places: Places, out: Path, *, splits: Iterable[SplitConfig] = PREVIEWED, show_private: bool = False
) -> tuple[dict[str, Path], dict[str, str]]:
    """Draws a dataset's first crops into a new folder: with their labels, and as the public side would see them under some splits.

    Args:
        name: of the dataset.
        places: data and cache folders.
        out: the new folder; mode 0700 for PRIVATE data.
        splits: to show.
        show_private: draw protected people too.

    Returns:
        What was drawn, `labels` or a split's name → the PNG; and the splits that this dataset cannot have → why.

    Raises:
        BadInput: there is no such dataset.
        Refused: `out` exists, or the people are protected and `show_private` is not given.
    """
    from dpcore.data.catalog import open_dataset
    from dpcore.data.folders import new_folder
    from dpcore.errors import BadInput
    from sweeps.models.keypoints.crops_sheet import check_shown, save_sheet

    dataset = open_dataset(name, places)
    check_shown(dataset.manifest, show_private=show_private)
    drawn, impossible = {"labels": out / "labels.png"}, {}
    with new_folder(out, private=dataset.manifest.role == "PRIVATE") as folder:
        save_sheet(dataset, folder / "labels.png", show_private=show_private)
        for split in splits:
            try:
                save_sheet(dataset, folder / f"split-{split.name}.png", show_private=show_private, split=split)
                drawn[split.name] = out / f"split-{split.name}.png"
            except BadInput as error:
                impossible[split.name] = str(error)
    return drawn, impossible
