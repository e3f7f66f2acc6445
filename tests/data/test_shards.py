"""Shards: what is written comes back; what was changed afterwards is found."""

import hashlib
import json
import pickle
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dpcore.data import shards
from dpcore.data.manifest import DatasetHeader, Record
from dpcore.data.shards import ShardSet, open_shards, write_shards
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.pose.skeleton import COCO_17, LSP_14, MPII_16, Skeleton

HEADER = DatasetHeader(name="tiny", role="PUBLIC", protected=False, height_px=8, width_px=12, origin="test")


def record(index: int) -> Record:
    generator = np.random.default_rng(index)
    visible = generator.random(16) > 0.3
    keypoints = np.where(visible[:, None], generator.normal(6, 3, (16, 2)), np.nan)
    return Record(
        image=generator.integers(0, 256, (8, 12, 3), dtype=np.uint8),
        keypoints=keypoints,
        visible=visible,
        head_size_px=float("nan") if index == 2 else 5.0 + index,
        person_id=f"p{index}",
        image_id=f"i{index // 2}",
        video_id="",
        source_id=f"row {index}",
    )


@pytest.fixture
def several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 3 * (8 * 12 * 3 + 1024))


@pytest.mark.usefixtures("several_files")
def test_rows_come_back_across_files_in_any_order(tmp_path: Path) -> None:
    manifest = write_shards(tmp_path / "d", (record(i) for i in range(8)), header=HEADER)
    dataset = open_shards(tmp_path / "d")
    assert [entry.rows for entry in manifest.files] == [3, 3, 2]
    assert len(dataset) == 8
    wanted = np.array([7, 0, 3, 3, 5])
    np.testing.assert_array_equal(dataset.images(wanted), np.stack([record(i).image for i in wanted]))
    assert dataset.images(np.array([], dtype=np.int64)).shape == (0, 8, 12, 3)
    for i in range(8):
        np.testing.assert_array_equal(dataset.visible[i], record(i).visible)
        np.testing.assert_allclose(dataset.keypoints[i], np.nan_to_num(record(i).keypoints), rtol=1e-6)
        assert dataset.content_hashes[i] == hashlib.sha256(record(i).image.tobytes()).hexdigest()
    assert dataset.image_ids.tolist() == ["i0", "i0", "i1", "i1", "i2", "i2", "i3", "i3"]
    assert np.isnan(dataset.head_size_px[2])
    assert dataset.head_size_px[7] == 12.0


def test_the_digest_covers_the_rows_and_not_the_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_shards(tmp_path / "one", [record(i) for i in range(5)], header=HEADER)
    moved = [record(i) for i in range(5)]
    moved[3] = replace(moved[3], head_size_px=9.5)
    other = write_shards(tmp_path / "other", moved, header=HEADER)
    monkeypatch.setattr(shards, "MAX_FILE_BYTES", 1)
    cut = write_shards(tmp_path / "cut", [record(i) for i in range(5)], header=HEADER)
    assert len(cut.files) == 5
    assert one.digest == cut.digest != other.digest


def test_a_pickle_carries_the_place_and_not_the_pixels(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [record(i) for i in range(4)], header=HEADER)
    dataset = open_shards(tmp_path / "d")
    frozen = pickle.dumps(dataset)
    assert len(frozen) < 500
    np.testing.assert_array_equal(pickle.loads(frozen).images(np.arange(4)), dataset.images(np.arange(4)))


def test_arrays_are_read_only(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [record(0)], header=HEADER)
    with pytest.raises(ValueError, match="read-only"):
        open_shards(tmp_path / "d").keypoints[0] = 0


def test_an_index_outside_the_dataset_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [record(0)], header=HEADER)
    for index in (-1, 1):
        with pytest.raises(BadInput, match="requested, there are 1 examples"):
            open_shards(tmp_path / "d").images(np.array([index]))


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_file_is_corrupt_and_named(tmp_path: Path, verify: bool) -> None:
    write_shards(tmp_path / "d", [record(i) for i in range(4)], header=HEADER)
    path = tmp_path / "d" / "shard-00000.arrow"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(Corrupt, match="shard-00000"):
        open_shards(tmp_path / "d", verify=verify)


def test_one_flipped_bit_is_found_and_verification_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "d", [record(i) for i in range(4)], header=HEADER)
    open_shards(tmp_path / "d")
    calls: list[Path] = []
    hash_file = shards.sha256_of
    monkeypatch.setattr(shards, "sha256_of", lambda path: (calls.append(path), hash_file(path))[1])
    open_shards(tmp_path / "d")
    assert calls == []
    path = tmp_path / "d" / "shard-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="sha256"):
        open_shards(tmp_path / "d")


def test_a_missing_file_another_schema_or_a_bad_manifest_is_corrupt(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [record(0)], header=HEADER)
    manifest = tmp_path / "d" / "manifest.json"
    good = json.loads(manifest.read_text())
    for change, said in (({"schema_version": 4}, "schema_version"), ({"count": 2}, "count"), ({"digest": "no"}, "digest")):
        manifest.write_text(json.dumps({**good, **change}))
        with pytest.raises(Corrupt, match=said):
            open_shards(tmp_path / "d")
    manifest.write_text(json.dumps(good))
    path = tmp_path / "d" / "shard-00000.arrow"
    table = pa.record_batch([pa.array([1])], names=["n"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_batch(table)
    with pytest.raises(Corrupt, match="columns"):
        open_shards(tmp_path / "d", verify=False)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        open_shards(tmp_path / "d")


def test_a_folder_without_a_dataset_is_bad_input_that_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="dpsweep data import"):
        open_shards(tmp_path / "nowhere")


def test_a_failing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    def rows() -> Iterator[Record]:
        yield record(0)
        raise BadInput("source broke")

    with pytest.raises(BadInput, match="source broke"):
        write_shards(tmp_path / "d", rows(), header=HEADER)
    with pytest.raises(BadInput, match="no record"):
        write_shards(tmp_path / "d", [], header=HEADER)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [record(0)], header=HEADER)
    before = (tmp_path / "d" / "manifest.json").read_bytes()
    with pytest.raises(Refused, match="exists"):
        write_shards(tmp_path / "d", [record(1)], header=HEADER)
    assert (tmp_path / "d" / "manifest.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(("role", "mode"), [("PRIVATE", 0o700), ("PUBLIC", 0o755)])
def test_private_data_is_for_its_owner_alone(tmp_path: Path, role: str, mode: int) -> None:
    write_shards(tmp_path / "d", [record(0)], header=HEADER.model_copy(update={"role": role}))
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == mode


def test_a_record_that_does_not_fit_is_named(tmp_path: Path) -> None:
    wrong_size = replace(record(1), image=np.zeros((8, 8, 3), dtype=np.uint8))
    not_finite = replace(record(1), visible=np.ones(16, dtype=bool), keypoints=np.full((16, 2), np.nan))
    for bad, said in ((wrong_size, "the crop must be"), (not_finite, "r_ankle is labelled but")):
        with pytest.raises(BadInput, match=f"row 1: .*{said}"):
            write_shards(tmp_path / "d", [record(0), bad], header=HEADER)


def test_public_data_cannot_be_protected() -> None:
    with pytest.raises(ValueError, match="cannot be protected"):
        DatasetHeader(name="x", role="PUBLIC", protected=True, height_px=8, width_px=8, origin="test")


def test_where_a_crop_was_cut_comes_back_and_unknown_stays_unknown(tmp_path: Path) -> None:
    write_shards(tmp_path / "d", [replace(record(0), box_px=(1.0, -2.0, 30.0, 40.0)), record(1)], header=HEADER)
    boxes = open_shards(tmp_path / "d").boxes_px
    assert boxes[0].tolist() == [1.0, -2.0, 30.0, 40.0]
    assert np.isnan(boxes[1]).all()


def test_boxes_change_no_digest(tmp_path: Path) -> None:
    """Ledgers, caches and replays of datasets from before boxes stay valid."""
    digests = {
        write_shards(tmp_path / str(i), [replace(record(0), box_px=box)], header=HEADER).digest
        for i, box in enumerate([None, (0.0, 0.0, 9.0, 9.0)])
    }
    assert len(digests) == 1


def test_a_dataset_from_before_boxes_is_read_as_one_that_does_not_say(tmp_path: Path) -> None:
    written = write_shards(tmp_path / "d", [record(0), record(1)], header=HEADER)
    path, manifest = tmp_path / "d" / "shard-00000.arrow", tmp_path / "d" / "manifest.json"
    batch = pa.ipc.open_file(str(path)).get_batch(0)
    columns = {name: batch.column(name) for name in batch.schema.names if name not in ("box_px", "place", "person_box_px", "area_px2")}
    schema = shards.shard_schema(8, 12, 16, 1)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(list(columns.values()), schema=schema))
    document = json.loads(manifest.read_text()) | {"schema_version": 1}
    del document["skeleton"]
    document["files"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))
    dataset = open_shards(tmp_path / "d")
    assert all(np.isnan(unknown).all() for unknown in (dataset.boxes_px, dataset.places, dataset.person_boxes_px, dataset.areas_px2))
    assert dataset.skeleton == MPII_16
    assert dataset.manifest.digest == written.digest
    assert dataset.person_ids.tolist() == ["p0", "p1"]


def people_of(skeleton: Skeleton, folder: Path, *, role: str = "PUBLIC", labelled: bool = True) -> ShardSet:
    generator = np.random.default_rng(7)
    keypoints, visible = generator.uniform(0, 8, (skeleton.count, 2)), np.full(skeleton.count, labelled)
    header = DatasetHeader(**{**dict(HEADER), "role": role, "skeleton": skeleton})
    write_shards(folder, [replace(record(n), keypoints=keypoints, visible=visible) for n in range(3)], header=header)
    return open_shards(folder)


def test_a_dataset_keeps_its_skeleton_and_its_digest_names_it(tmp_path: Path) -> None:
    renamed = Skeleton(**{**{name: getattr(COCO_17, name) for name in Skeleton.model_fields}, "joints": COCO_17.joints[::-1]})
    first, second = people_of(COCO_17, tmp_path / "a"), people_of(renamed, tmp_path / "b")
    assert (first.skeleton, second.skeleton) == (COCO_17, renamed)
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    assert first.identity != second.identity


def test_public_people_are_read_with_another_skeleton_as_another_dataset(tmp_path: Path) -> None:
    own = people_of(COCO_17, tmp_path / "a")
    other = own.as_skeleton(MPII_16)
    assert other.keypoints.shape == (3, 16, 2)
    np.testing.assert_array_equal(other.keypoints[:, MPII_16.index["l_knee"]], own.keypoints[:, COCO_17.index["l_knee"]])
    assert other.identity != own.identity
    assert own.skeleton == COCO_17
    assert own.as_skeleton(COCO_17) is own
    copied = pickle.loads(pickle.dumps(other))
    assert copied.skeleton == MPII_16
    assert copied.identity == other.identity


def test_private_people_are_never_mapped_and_a_mapping_without_a_label_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="has the skeleton coco_17, mpii_16 is needed: only PUBLIC data"):
        people_of(COCO_17, tmp_path / "a", role="PRIVATE").as_skeleton(MPII_16)
    with pytest.raises(BadInput, match="none of the joints that both name is labelled"):
        people_of(COCO_17, tmp_path / "b", labelled=False).as_skeleton(MPII_16)


def test_a_head_is_measured_where_the_skeleton_names_it_and_the_record_does_not(tmp_path: Path) -> None:
    dataset = people_of(LSP_14, tmp_path / "a")
    neck, top = (dataset.keypoints[:, LSP_14.index[joint]] for joint in ("neck", "head_top"))
    given = [record(n).head_size_px for n in range(3)]
    expected = [np.linalg.norm(neck[n] - top[n]) if np.isnan(given[n]) else given[n] for n in range(3)]
    np.testing.assert_allclose(dataset.head_size_px, expected, rtol=1e-6)
