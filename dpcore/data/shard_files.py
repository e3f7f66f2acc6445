"""One file of a dataset: an Arrow IPC file with one record batch.

The crop bytes are a fixed-size binary column, so numpy reads them from the mapped file without a copy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpcore.data.manifest import DIGEST_VERSION, SCHEMA_VERSION, DatasetHeader, Record

SHARD_SUFFIX = ".arrow"
_MEASURES = {"place": 3, "person_box_px": 4, "area_px2": 1}
"""Columns of doubles with their lengths, which change no weight and are left out of the digest."""
TEXT_COLUMNS = ("person_id", "image_id", "video_id", "source_id", "content_hash")


def shard_schema(height_px: int, width_px: int, joints: int, version: int = SCHEMA_VERSION) -> pa.Schema:
    """The columns of a schema version, for crops of one size with so many joints."""
    columns = [
        pa.field("image", pa.binary(height_px * width_px * 3), nullable=False),
        pa.field("keypoints", pa.list_(pa.float32(), joints * 2), nullable=False),
        pa.field("visible", pa.list_(pa.bool_(), joints), nullable=False),
        pa.field("head_size_px", pa.float32(), nullable=False),
        *([pa.field("box_px", pa.list_(pa.float32(), 4), nullable=False)] if version > 1 else []),
        *([pa.field(name, pa.list_(pa.float64(), size), nullable=False) for name, size in _MEASURES.items()] if version > 2 else []),
        *(pa.field(name, pa.string(), nullable=False) for name in TEXT_COLUMNS),
    ]
    return pa.schema(columns, metadata={"dpsweep_schema": str(version)})


def write_shard(path: Path, records: Sequence[Record], *, header: DatasetHeader) -> None:
    """Writes records into a new file.

    Raises:
        BadInput: a record does not fit the header.
    """
    schema = shard_schema(header.height_px, header.width_px, header.skeleton.count)
    batch = _batch_of([record.checked(header) for record in records], schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def new_digest(header: DatasetHeader) -> Any:
    """The digest of a dataset without rows; `add_rows` adds them in order."""
    mark = header.skeleton.mark
    return hashlib.sha256(f"{DIGEST_VERSION}|{header.height_px}|{header.width_px}{mark and '|' + mark}".encode())


def add_rows(content: Any, table: pa.RecordBatch) -> None:
    """Adds the rows of a file to a dataset's digest. It does not depend on how rows are divided into files."""
    keypoints, heads = floats(table, "keypoints"), floats(table, "head_size_px")
    joints = len(keypoints) // (2 * table.num_rows)
    keypoints, visible = keypoints.reshape(table.num_rows, joints, 2), flags(table, joints)
    texts = [table.column(name).to_pylist() for name in TEXT_COLUMNS]
    for row in range(table.num_rows):
        for part in (keypoints[row].tobytes(), visible[row].tobytes(), heads[row].tobytes()):
            content.update(part)
        content.update("\x00".join(column[row] for column in texts).encode())


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def floats(table: pa.RecordBatch, name: str) -> NDArray[np.float32]:
    """A column of floats, flat."""
    column = table.column(name)
    values = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    array: NDArray[np.float32] = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return array


def flags(table: pa.RecordBatch, joints: int) -> NDArray[np.bool_]:
    """Which joints are labelled, (N, joints)."""
    labelled: NDArray[np.bool_] = table.column("visible").flatten().to_numpy(zero_copy_only=False).reshape(-1, joints)
    return labelled


def measures(table: pa.RecordBatch, name: str, size: int) -> NDArray[np.float64]:
    """A column of numbers (N, size); NaN where the dataset's schema version does not have it."""
    if name not in table.schema.names:
        return np.full((table.num_rows, size), np.nan)
    values: NDArray[np.float64] = table.column(name).flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    return values.reshape(-1, size)


def _batch_of(chunk: Sequence[Record], schema: pa.Schema) -> pa.RecordBatch:
    visible = np.stack([record.visible for record in chunk]).astype(bool)
    keypoints = np.where(visible[..., None], np.stack([record.keypoints for record in chunk]), 0.0).astype(np.float32)
    heads = np.array([record.head_size_px for record in chunk], dtype=np.float32)
    boxes = np.array([(np.nan,) * 4 if record.box_px is None else record.box_px for record in chunk], dtype=np.float32)
    measures = {name: np.array([_measure(record, name) for record in chunk], dtype=np.float64) for name in _MEASURES}
    texts = {name: [getattr(record, name) for record in chunk] for name in TEXT_COLUMNS}
    columns = [
        pa.array([np.ascontiguousarray(record.image).tobytes() for record in chunk], type=schema.field("image").type),
        pa.FixedSizeListArray.from_arrays(pa.array(keypoints.ravel()), type=schema.field("keypoints").type),
        pa.FixedSizeListArray.from_arrays(pa.array(visible.ravel()), type=schema.field("visible").type),
        pa.array(heads),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), type=schema.field("box_px").type),
        *(pa.FixedSizeListArray.from_arrays(pa.array(measures[n].ravel()), type=schema.field(n).type) for n in _MEASURES),
        *(pa.array(texts[name], type=pa.string()) for name in TEXT_COLUMNS),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _measure(record: Record, column: str) -> tuple[float, ...]:
    """What a column of `_MEASURES` holds of a record, NaN where unknown."""
    if column == "area_px2":
        return (record.area_px2,)
    if column == "place":
        return (math.nan,) * 3 if record.crop is None else (*record.crop.centre, record.crop.zoom)
    return (math.nan,) * 4 if record.person_box_px is None else record.person_box_px
