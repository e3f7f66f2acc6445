"""Spool and sender: nothing lost, nothing out of order, no outage in the sweep's way."""

import json
import threading
from pathlib import Path

import pytest
from full_disk import fill, small_disk

from dpcore.errors import Corrupt
from sweeps.tracking.outbox.sender import Sender
from sweeps.tracking.outbox.spool import Spool, waiting_bytes


def sender_of(spool: Spool, deliver: object, *, final: bool = False) -> Sender:
    return Sender(spool, deliver, outages=(OSError,), is_final=lambda error: final, first_pause_s=0.01)


def test_events_are_sent_in_order_and_the_offset_is_kept(tmp_path: Path) -> None:
    sent: list[int] = []
    sender = sender_of(Spool(tmp_path), lambda event: sent.append(event["n"]))
    for n in range(20):
        sender.append({"kind": "run", "n": n})
    assert sender.close(within_s=300) == 0
    assert sent == list(range(20))
    assert Spool(tmp_path).unanswered() == 0


def test_an_outage_delays_and_never_loses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[int] = []
    failures = iter([True, True, True])

    def deliver(event: dict[str, int]) -> None:
        if next(failures, False):
            raise ConnectionError("refused")
        sent.append(event["n"])

    sender = sender_of(Spool(tmp_path), deliver)
    for n in range(3):
        sender.append({"kind": "run", "n": n})
    assert sender.close(within_s=300) == 0
    assert sent == [0, 1, 2]
    said = capsys.readouterr().err
    assert said.count("does not answer") == 1
    assert "answers again" in said


def test_appending_never_waits_for_the_receiver(tmp_path: Path) -> None:
    gate = threading.Event()
    sent: list[int] = []

    def hang(event: dict[str, int]) -> None:
        gate.wait()
        sent.append(event["n"])

    sender = sender_of(Spool(tmp_path), hang)
    for n in range(50):
        sender.append({"kind": "run", "n": n})
    assert sent == []
    gate.set()
    sender.close(within_s=300)


def test_an_outage_that_lasts_leaves_the_events_to_the_next_process(tmp_path: Path) -> None:
    def down(event: dict[str, int]) -> None:
        raise ConnectionError("refused")

    sender = sender_of(Spool(tmp_path), down)
    sender.append({"kind": "run", "n": 1})
    assert sender.close(within_s=0.1) == 1
    sent: list[int] = []
    assert sender_of(Spool(tmp_path), lambda event: sent.append(event["n"])).close(within_s=300) == 0
    assert sent == [1]


def test_an_event_that_can_never_be_taken_is_said_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[int] = []

    def deliver(event: dict[str, int]) -> None:
        if event["n"] == 0:
            raise FileNotFoundError("model.safetensors")
        sent.append(event["n"])

    sender = sender_of(Spool(tmp_path), deliver, final=True)
    for n in range(2):
        sender.append({"kind": "files", "key": "e0.8-000", "n": n})
    assert sender.close(within_s=300) == 0
    assert sent == [1]
    assert "refuses files of e0.8-000: model.safetensors" in capsys.readouterr().err


def test_a_bug_in_the_thread_surfaces_at_close_and_keeps_the_events(tmp_path: Path) -> None:
    def buggy(event: dict[str, int]) -> None:
        raise KeyError("key")

    sender = sender_of(Spool(tmp_path), buggy)
    sender.append({"kind": "run", "n": 1})
    with pytest.raises(KeyError):
        sender.close(within_s=300)
    assert Spool(tmp_path).unanswered() == 1


def test_a_line_cut_by_a_crash_is_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append({"n": 1})
    with spool.path.open("ab") as file:
        file.write(b'{"n": 2')
    again = Spool(tmp_path)
    again.append({"n": 3})
    seen = []
    while (waiting := again.next()) is not None:
        seen.append(waiting[0]["n"])
        again.acknowledge(waiting[1])
    assert seen == [1, 3]


def test_an_event_that_a_full_disk_cut_short_is_taken_back(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_kib=64) as folder:
        spool = Spool(folder)
        spool.append({"n": 1})
        filler = fill(folder)
        with pytest.raises(OSError, match="No space left"):
            spool.append({"n": "x" * 5000})
        filler.unlink()
        spool.append({"n": 3})
        assert [json.loads(line)["n"] for line in spool.path.read_text().splitlines()] == [1, 3]


def test_infinity_is_refused_before_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        spool.append({"value": float("inf")})
    assert spool.unanswered() == 0


def test_an_offset_beyond_the_end_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "tracking.offset").write_text("99\n")
    with pytest.raises(Corrupt, match="offset"):
        Spool(tmp_path)


@pytest.mark.parametrize("at", [3, 12, 30, -1])
def test_a_damaged_line_is_said_and_skipped_and_the_others_are_sent(at: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spool = Spool(tmp_path)
    for n in range(4):
        spool.append({"kind": "run", "key": f"e0.8-00{n}", "n": n})
    lines = spool.path.read_bytes().splitlines(keepends=True)
    changed = bytearray(lines[1])
    changed[at] ^= 0x55
    spool.path.write_bytes(b"".join([lines[0], bytes(changed), *lines[2:]]))
    sent: list[int] = []
    sender = sender_of(Spool(tmp_path), lambda event: sent.append(event["n"]))
    assert sender.close(within_s=300) == 0
    assert sent == ([0, 2, 3] if at >= 0 else [0, 3])  # without its line break it takes the next line with it
    assert f"{spool.path}: the line at byte {len(lines[0])} is damaged" in capsys.readouterr().err
    assert waiting_bytes(tmp_path) == 0


def test_an_offset_that_is_no_text_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "tracking.offset").write_bytes(b"\xff7\n")
    with pytest.raises(Corrupt, match="offset"):
        Spool(tmp_path)
