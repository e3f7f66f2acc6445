"""The manifest of a dataset, and one row of it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from dpcore.config import Part
from dpcore.data.crops import CropBox
from dpcore.durable import OWNER_ONLY, replace_file
from dpcore.errors import BadInput, Corrupt
from dpcore.pose.skeleton import MPII_16, Skeleton

SCHEMA_VERSION: Final = 3
"""Version 2 added the part of its image that each crop shows. Version 3 added the skeleton, the exact place of each crop, and the person's
box and area. In a dataset of an earlier version they are unknown, and the skeleton is mpii_16."""
DIGEST_VERSION: Final = 1
"""Increased when equal rows would give another digest. The digest leaves boxes and areas out, because they change no weight."""
MANIFEST_NAME = "manifest.json"
DatasetRole = Literal["PUBLIC", "PRIVATE"]
Crops = Literal["labels", "detector", "whole_image"]


class DatasetHeader(Part):
    """What the maker of a dataset decides: name, role, crop size and origin.

    `crops` says who placed the crop's frame, because every public view of the crop shows its frame:

    | crops | the frame comes from |
    |---|---|
    | labels | annotations. Also the value of older manifests without this field |
    | detector | a public detector that saw the photograph and no label |
    | whole_image | the camera: nothing was cut after labelling |

    `protected` marks data of real people. Only PRIVATE data can be protected. Stand-ins (synthetic people, research benchmarks) are
    PRIVATE and not protected. `cohort` names the people in a ledger (`dpcore.data.cohorts`). If it is None, the name is derived from
    the image ids. `ledger` is where they are charged, whatever storage a sweep runs in.
    """

    name: str = Field(min_length=1)
    role: DatasetRole
    protected: bool
    height_px: int = Field(ge=8, le=2048)
    width_px: int = Field(ge=8, le=2048)
    origin: str = Field(description="generator and its settings, or importer and its source file")
    cohort: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="PRIVATE data: who is charged")
    crops: Crops = "labels"
    ledger: str | None = Field(default=None, description="PRIVATE data: SQLAlchemy URL of the ledger that its people are charged to")
    skeleton: Skeleton = Field(default=MPII_16, description="the joints of its records; older manifests mean mpii_16")
    box_scale: float = Field(default=1.25, gt=0, description="margin around a person's box, which a crop shows; older manifests mean 1.25")

    @property
    def is_synthetic(self) -> bool:
        """Whether the generator made it: nobody is on its pictures."""
        return self.origin.startswith("synthetic ")

    @model_validator(mode="after")
    def _public_data_is_not_protected(self) -> Self:
        if self.role == "PUBLIC" and self.protected:
            raise ValueError("a PUBLIC dataset cannot be protected: give role PRIVATE, or protected false")
        if self.role == "PUBLIC" and self.cohort is not None:
            raise ValueError("a PUBLIC dataset has no cohort, because no ledger charges it; leave --cohort out")
        return self


class FileEntry(Part):
    """One shard file: its name in the folder, the sha256 of its bytes, its number of rows."""

    name: str = Field(pattern=r"^[\w.-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rows: int = Field(ge=1)


class Manifest(DatasetHeader):
    """The header and a list of what was written.

    `digest` covers the rows in order and the crop size, but not the division into files and not the crops' boxes. It is a plain hash,
    and for protected data a plain hash is a membership test. So it stays in this folder. Everything else uses `ShardSet.identity`.
    """

    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
    count: int = Field(ge=1)
    files: tuple[FileEntry, ...] = Field(min_length=1)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _rows_add_up(self) -> Self:
        if sum(entry.rows for entry in self.files) != self.count:
            raise ValueError(f"count {self.count} is not the sum of its files' rows")
        return self

    @property
    def header(self) -> DatasetHeader:
        """The fields that the dataset's maker decided."""
        return DatasetHeader(**{name: getattr(self, name) for name in DatasetHeader.model_fields})


def name_ledger(folder: Path, url: str) -> None:
    """Writes into a dataset's manifest which ledger its people are charged to, whole or not at all."""
    manifest = load_manifest(folder).model_copy(update={"ledger": url})
    mode = OWNER_ONLY if manifest.role == "PRIVATE" else None
    replace_file(folder / MANIFEST_NAME, manifest.model_dump_json(indent=1).encode(), mode=mode)


def load_manifest(folder: Path) -> Manifest:
    """The manifest of a dataset folder.

    Raises:
        BadInput: there is no folder or it holds no dataset.
        Corrupt: the manifest exists but is not valid.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise BadInput(
            f"{folder} is not a dataset (it has no {MANIFEST_NAME}): make one with `dpsweep data import` or `dpsweep data synth`"
        )
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise Corrupt(f"{path}: {where}: {first['msg']}; import the dataset again") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One person's crop with its labels and the ids of the privacy units it belongs to.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        keypoints: (K, 2) px in the crop, x right and y down, pixel centres at integers, in the order of the dataset's skeleton.
            Labelled joints may lie outside.
        visible: (K,) bool, whether the joint is labelled. Coordinates of other joints are stored as zeros.
        head_size_px: the PCKh denominator; NaN where unknown.
        person_id, image_id, video_id: privacy units; an empty video_id means that the video is not known.
        source_id: origin of the record, for error messages.
        box_px: left, top, right and bottom, in the image `image_id`, of all pixels that reached the crop; None if unknown.
        crop: where in the image the crop was cut; None if unknown. PCK by box and OKS need it.
        person_box_px: left, top, right and bottom of the person in the image, without a margin; None if unknown. PCK by box needs it.
        area_px2: the person's area in the image, as its annotation says it; NaN if unknown. OKS needs it.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.floating]
    visible: NDArray[np.bool_]
    head_size_px: float
    person_id: str
    image_id: str
    video_id: str
    source_id: str
    box_px: tuple[float, float, float, float] | None = None
    crop: CropBox | None = None
    person_box_px: tuple[float, float, float, float] | None = None
    area_px2: float = math.nan

    @property
    def content_hash(self) -> str:
        """sha256 of the crop's bytes."""
        return hashlib.sha256(self.image.tobytes()).hexdigest()

    def checked(self, header: DatasetHeader) -> Self:
        """This record. Raises `BadInput` with its name if it does not fit the dataset."""
        size = (header.height_px, header.width_px, 3)
        if self.image.dtype != np.uint8 or self.image.shape != size:
            raise BadInput(f"{self.source_id}: the crop must be uint8 {size}, given {self.image.dtype} {self.image.shape}")
        count = header.skeleton.count
        if self.keypoints.shape != (count, 2) or self.visible.shape != (count,):
            raise BadInput(
                f"{self.source_id}: the skeleton {header.skeleton.name} expects ({count}, 2) keypoints and ({count},) visibilities, "
                f"given {self.keypoints.shape} and {self.visible.shape}"
            )
        unplaced = self.visible & ~np.isfinite(self.keypoints).all(axis=-1)
        if unplaced.any():
            joint = header.skeleton.joints[int(np.argmax(unplaced))]
            raise BadInput(f"{self.source_id}: joint {joint} is labelled but its coordinates are not finite; correct or unlabel it")
        return self
