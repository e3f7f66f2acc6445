"""Stores datasets as Arrow IPC files: written once, then memory-mapped and shared by every process of a node.

The crop bytes are a fixed-size binary column in one record batch per file, so numpy reads them without a copy.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dpcore.data.cohorts import Members, check_cohort, derived_cohort, new_cohort
from dpcore.data.dataset_key import DatasetKey
from dpcore.data.folders import new_folder
from dpcore.data.framing import CropFrame
from dpcore.data.manifest import MANIFEST_NAME, DatasetHeader, FileEntry, Manifest, Record, load_manifest
from dpcore.data.shard_files import (
    SHARD_SUFFIX,
    TEXT_COLUMNS,
    add_rows,
    flags,
    floats,
    measures,
    new_digest,
    sha256_of,
    shard_schema,
    write_shard,
)
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.pose.skeleton import Skeleton, mapped

MAX_FILE_BYTES = 64 * 2**20

_verified: set[tuple[str, int, int, str]] = set()
"""Files whose sha256 this process has already checked, by path, mtime, size and expected hash."""


class ShardSet:
    """An open dataset, read-only. Images stay in the mapped files. Labels and ids are small and held in memory.

    Attributes:
        folder: the dataset's folder.
        manifest: the dataset's manifest.
        skeleton: the joints of `keypoints`; that of the manifest, or the one that this view was mapped to.
        keypoints: (N, K, 2) float32 px.
        visible: (N, K) bool.
        head_size_px: (N,) float32, NaN where unknown. Where the record holds none and the skeleton names a head, the distance of its two
            joints.
        boxes_px: (N, 4) float32, the part of its image that each crop shows (see `Record.box_px`), NaN where unknown.
        places: (N, 3) float64, centre x and y of each crop in its image in px, and its zoom in crop px per image px; NaN where unknown.
        person_boxes_px: (N, 4) float64, left, top, right and bottom of each person in the image, NaN where unknown.
        areas_px2: (N,) float64, the person's area in the image, NaN where unknown.
        person_ids, image_ids, video_ids, source_ids, content_hashes: (N,) arrays of str.
        frame: how its crops are shown; None: as they are stored. `keypoints`, `head_size_px` and the manifest's crop size are of what is
            shown. `stored`: the dataset without the frame.
    """

    def __init__(self, folder: Path, manifest: Manifest, tables: list[pa.RecordBatch], *, key: DatasetKey | None = None) -> None:
        self._key = key
        self.folder = folder
        self.manifest = manifest
        self.frame: CropFrame | None = None
        self.stored: ShardSet = self
        self._crops = [self._crops_of(table) for table in tables]
        self._starts = np.cumsum([0, *(len(crops) for crops in self._crops)])
        self.skeleton = manifest.skeleton
        count = self.skeleton.count
        self.keypoints = _frozen(np.concatenate([floats(t, "keypoints").reshape(-1, count, 2) for t in tables]))
        self.visible = _frozen(np.concatenate([flags(t, count) for t in tables]))
        self.boxes_px = _frozen(np.concatenate([measures(t, "box_px", 4).astype(np.float32) for t in tables]))
        self.places = _frozen(np.concatenate([measures(t, "place", 3) for t in tables]))
        self.person_boxes_px = _frozen(np.concatenate([measures(t, "person_box_px", 4) for t in tables]))
        self.areas_px2 = _frozen(np.concatenate([measures(t, "area_px2", 1)[:, 0] for t in tables]))
        heads = np.concatenate([floats(t, "head_size_px") for t in tables])
        self.head_size_px = _frozen(_with_measured_heads(heads, self.skeleton, self.keypoints, self.visible))
        texts = {name: np.array([v for t in tables for v in t.column(name).to_pylist()], dtype=np.str_) for name in TEXT_COLUMNS}
        self.person_ids = _frozen(texts["person_id"])
        self.image_ids = _frozen(texts["image_id"])
        self.video_ids = _frozen(texts["video_id"])
        self.source_ids = _frozen(texts["source_id"])
        self.content_hashes = _frozen(texts["content_hash"])

    def __len__(self) -> int:
        return self.manifest.count

    def __reduce__(self) -> tuple[Any, ...]:
        # a pickle holds the path, not the pixels: the other process maps the same files
        if self.frame is not None:
            return ShardSet.shown_in, (self.stored, self.frame)
        if self.skeleton == self.manifest.skeleton:
            return open_shards, (self.folder,)
        return _reopened, (self.folder, self.skeleton)

    @property
    def identity(self) -> str:
        """64 hex digits that identify the rows and may leave the folder: the digest, or its HMAC for protected data. Rows that were
        mapped to another skeleton are other rows."""
        own = self.manifest
        if self.frame is not None:
            return hashlib.sha256(f"{self.stored.identity}|{self.frame.mark}".encode()).hexdigest()
        if self.skeleton == own.skeleton:
            return self.outer_digest(own.digest)
        return hashlib.sha256(f"{own.digest}|{own.skeleton.mark}|{self.skeleton.mark}".encode()).hexdigest()

    @property
    def source(self) -> ShardSet:
        """The dataset without any frame. Caches name it as what they derive from, and views of one person join in it."""
        return self if self.frame is None else self.stored.source

    def outer_digest(self, digest: str) -> str:
        """A digest of something made from this dataset, in the form that may leave its folder."""
        return digest if self._key is None else self._key.digest(digest)

    def as_skeleton(self, skeleton: Skeleton) -> ShardSet:
        """The same people with the joints of `skeleton`, by name; itself where it has that skeleton.

        Raises:
            Refused: the dataset is PRIVATE; only PUBLIC data are mapped.
            BadInput: no joint can be had, or none of those is labelled.
        """
        own = self.skeleton
        if (own.joints, own.mirrored) == (skeleton.joints, skeleton.mirrored):
            return self
        if self.frame is not None:
            return self.stored.as_skeleton(skeleton).shown_in(self.frame)
        where = f"dataset {self.manifest.name} has the skeleton {own.name}, {skeleton.name} is needed"
        if self.manifest.role == "PRIVATE":
            raise Refused(f"{where}: only PUBLIC data are mapped from one skeleton to another; give data with that skeleton")
        try:
            keypoints, visible = mapped(self.keypoints, self.visible, source=own, target=skeleton)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        if not visible.any():
            raise BadInput(f"{where}: none of the joints that both name is labelled in it; give other data")
        other = copy.copy(self)
        other.stored, other.skeleton = other, skeleton
        other.keypoints, other.visible = _frozen(keypoints.astype(np.float32)), _frozen(visible)
        return other

    def shown_in(self, frame: CropFrame) -> ShardSet:
        """The same people, in another frame: their pixels when they are read, and their labels. Boxes and places stay those of the stored
        crops, and so do content hashes."""
        other, rows, points = copy.copy(self), np.arange(len(self)), self.keypoints
        height, width = frame.size_px
        shown = np.where(self.visible[..., None], frame.of_points(points, rows), 0.0)
        other.frame, other.stored = frame, self
        margin = self.manifest.box_scale / frame.crop_zoom
        other.manifest = self.manifest.model_copy(update={"height_px": height, "width_px": width, "box_scale": margin})
        other.keypoints = _frozen(shown.astype(np.float32))
        other.head_size_px = _frozen((self.head_size_px * frame.zoom).astype(np.float32))
        return other

    @property
    def members(self) -> Members:
        """The people of this dataset, as a ledger charges them."""
        ids, manifest = np.unique(self.image_ids), self.manifest
        return Members(dataset=manifest.name, protected=manifest.protected, cohort=manifest.cohort or derived_cohort(ids), image_ids=ids)

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """A copy of the crops at `indices` (B,): (B, H, W, 3) uint8 RGB.

        Raises:
            BadInput: an index is outside 0 … N-1.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise BadInput(f"{self.manifest.name}: indices {wanted.min()} … {wanted.max()} requested, there are {len(self)} examples")
        if self.frame is not None:
            return self.frame.of_images(self.stored.images(wanted), wanted)
        out = np.empty((len(wanted), self.manifest.height_px, self.manifest.width_px, 3), dtype=np.uint8)
        files = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(files):
            here = files == number
            out[here] = self._crops[number][wanted[here] - self._starts[number]]
        return out

    def _crops_of(self, table: pa.RecordBatch) -> NDArray[np.uint8]:
        column = table.column("image")
        height, width = self.manifest.height_px, self.manifest.width_px
        start = column.offset * height * width * 3
        flat = np.frombuffer(column.buffers()[1], dtype=np.uint8, count=len(column) * height * width * 3, offset=start)
        return flat.reshape(len(column), height, width, 3)


def write_shards(folder: Path, rows: Iterable[Record], *, header: DatasetHeader) -> Manifest:
    """Writes a dataset: temporary folder, fsync, rename. PRIVATE data gets mode 0700. Protected data gets a key and a cohort.

    Raises:
        Refused: the folder exists, a dataset beside it has the same protected people in another cohort, or a PRIVATE crop is there twice.
        BadInput: a record does not fit the header, or there is no record.
    """
    per_file = max(1, MAX_FILE_BYTES // (header.height_px * header.width_px * 3 + 1024))
    with new_folder(folder, private=header.role == "PRIVATE") as temporary:
        source = iter(rows)
        entries: list[FileEntry] = []
        while chunk := list(itertools.islice(source, per_file)):
            path = temporary / f"shard-{len(entries):05d}{SHARD_SUFFIX}"
            write_shard(path, chunk, header=header)
            entries.append(FileEntry(name=path.name, sha256=sha256_of(path), rows=len(chunk)))
        return assemble_shards(temporary, entries, header=header, place=folder)


def assemble_shards(temporary: Path, entries: Sequence[FileEntry], *, header: DatasetHeader, place: Path) -> Manifest:
    """Makes a dataset of shard files that were written already: manifest, and the key and cohort of protected data.

    Args:
        temporary: the folder with the files.
        entries: the files, in the order of their rows.
        header: of the dataset.
        place: where the folder will be.

    Raises:
        Refused: a dataset beside `place` has the same protected people in another cohort, or a PRIVATE crop is there twice.
        BadInput: there is no record.
    """
    if not entries:
        raise BadInput(f"{header.name}: {header.origin} gave no record to write")
    if header.protected and header.cohort is None:
        header = header.model_copy(update={"cohort": new_cohort()})
    schema = shard_schema(header.height_px, header.width_px, header.skeleton.count)
    content = new_digest(header)
    first_of: dict[str, tuple[str, str]] = {}
    for entry in entries:
        table = _open_file(temporary / entry.name, entry, schema, verify=False)
        if header.role == "PRIVATE":
            _refuse_twins(table, first_of)
        add_rows(content, table)
    manifest = Manifest(**dict(header), count=sum(entry.rows for entry in entries), files=tuple(entries), digest=content.hexdigest())
    (temporary / MANIFEST_NAME).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    if header.protected:
        DatasetKey.fresh().save(temporary)
    if header.role == "PRIVATE":
        check_cohort(open_shards(temporary, verify=False).members, members_beside(place), place=place.parent)
    return manifest


def _refuse_twins(table: pa.RecordBatch, first_of: dict[str, tuple[str, str]]) -> None:
    """Refuses one crop as two people: its person would be two privacy units, and would be charged as one of them.

    Args:
        table: the next records.
        first_of: content hash → person and source of the first record with it. The next records join.

    Raises:
        Refused: names both records.
    """
    columns = (table.column(name).to_pylist() for name in ("content_hash", "person_id", "source_id"))
    for content_hash, person_id, source_id in zip(*columns, strict=True):
        person, source = first_of.setdefault(content_hash, (person_id, source_id))
        if person != person_id:
            raise Refused(f"{source_id} and {source} are the same crop: the same person would be two privacy units. Leave one of them out")


def ledgers_of(cohort: str, folder: Path) -> set[str]:
    """The ledgers that datasets of the same people beside `folder` name.

    Raises:
        Corrupt: a manifest there cannot be read.
    """
    places = [path.parent for path in sorted(folder.parent.glob(f"[!.]*/{MANIFEST_NAME}")) if path.parent.resolve() != folder.resolve()]
    manifests = [load_manifest(place) for place in places]
    return {manifest.ledger for manifest in manifests if manifest.ledger is not None and manifest.cohort == cohort}


def members_beside(folder: Path) -> list[Members]:
    """The people of the PRIVATE datasets in the same parent folder as `folder`.

    Raises:
        Corrupt: one of these datasets cannot be read.
    """
    manifests = {path.parent: load_manifest(path.parent) for path in sorted(folder.parent.glob(f"[!.]*/{MANIFEST_NAME}"))}
    private = [place for place, manifest in manifests.items() if manifest.role == "PRIVATE" and place.resolve() != folder.resolve()]
    return [open_shards(place, verify=False).members for place in private]


def open_shards(folder: Path, *, verify: bool = True) -> ShardSet:
    """Opens a dataset, memory-mapped.

    Args:
        folder: a dataset's folder.
        verify: compare each file with its sha256, once per process and state of the file.

    Raises:
        BadInput: the folder holds no dataset.
        Corrupt: a file differs from the manifest; the message names it.
        Unavailable, Refused: the key of protected data is missing, or other users can read it.
    """
    folder = folder.resolve()
    manifest = load_manifest(folder)
    key = _key_of(folder, manifest)
    schema = shard_schema(manifest.height_px, manifest.width_px, manifest.skeleton.count, manifest.schema_version)
    return ShardSet(folder, manifest, [_open_file(folder / entry.name, entry, schema, verify=verify) for entry in manifest.files], key=key)


def _key_of(folder: Path, manifest: Manifest) -> DatasetKey | None:
    if not manifest.protected:
        return None
    if manifest.cohort is None:
        raise Corrupt(f"{folder}: protected data without a cohort; no ledger could charge its people: import the dataset again")
    return DatasetKey.load(folder)


def _open_file(path: Path, entry: FileEntry, schema: pa.Schema, *, verify: bool) -> pa.RecordBatch:
    if not path.is_file():
        raise Corrupt(f"{path} is missing but listed in its manifest: import the dataset again")
    if verify:
        _verify_file(path, entry)
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        found, batches = reader.schema, [reader.get_batch(number) for number in range(reader.num_record_batches)]
    except (pa.ArrowInvalid, OSError) as error:
        raise Corrupt(f"{path} is not a readable Arrow file ({error}): import the dataset again") from None
    if not found.equals(schema, check_metadata=True):
        raise Corrupt(f"{path}: its columns differ from the schema version in its manifest: import the dataset again")
    rows = sum(batch.num_rows for batch in batches)
    if len(batches) != 1 or rows != entry.rows:
        raise Corrupt(f"{path}: {rows} rows in {len(batches)} batches, its manifest says {entry.rows} in one: import the dataset again")
    return batches[0]


def _verify_file(path: Path, entry: FileEntry) -> None:
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size, entry.sha256)
    if key in _verified:
        return
    found = sha256_of(path)
    if found != entry.sha256:
        raise Corrupt(f"{path}: sha256 {found[:12]}…, its manifest says {entry.sha256[:12]}…: import the dataset again")
    _verified.add(key)


def _with_measured_heads(
    heads: NDArray[np.float32], skeleton: Skeleton, keypoints: NDArray[np.float32], visible: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Head sizes (N,), measured between the two joints of the skeleton's head where a record has none and both are labelled."""
    if skeleton.head is None:
        return heads
    first, second = (skeleton.index[joint] for joint in skeleton.head)
    length = np.linalg.norm(keypoints[:, first] - keypoints[:, second], axis=-1)
    measured = np.isnan(heads) & visible[:, first] & visible[:, second]
    return np.where(measured, length, heads).astype(np.float32)


def _reopened(folder: Path, skeleton: Skeleton) -> ShardSet:
    return open_shards(folder).as_skeleton(skeleton)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array


def iterate_rows(dataset: ShardSet, batch_size: int = 256) -> Iterator[NDArray[np.int64]]:
    """Indices 0 … N-1 in order, `batch_size` at a time: for passes over a whole dataset."""
    for start in range(0, len(dataset), batch_size):
        yield np.arange(start, min(start + batch_size, len(dataset)))
