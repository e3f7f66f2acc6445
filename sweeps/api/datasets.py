"""Pictures of a dataset's crops, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dpcore.config import Places

if TYPE_CHECKING:
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
