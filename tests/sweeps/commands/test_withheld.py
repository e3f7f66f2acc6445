"""What the machine withholds — a writable disk, another user's files, letters — ends a command with one message and no traceback."""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import spaces

from dpcore.config import Places
from dpcore.errors import BadInput
from sweeps.cli import OneLineParser, execute, main
from sweeps.engine.preflight import check_writable
from sweeps.ledger.ledger import Ledger
from sweeps.records.spec import SweepSpec
from sweeps.report.text import print_json

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user, and a disk that takes no writes, need root")


@pytest.fixture
def spec() -> Iterator[SweepSpec]:
    """A sweep in a folder that every user of the machine may enter."""
    root = Path(tempfile.mkdtemp(prefix="dpsweep-withheld-"))
    root.chmod(0o755)
    places = Places(data_dir=root / "data", cache_dir=root / "cache")
    made = SweepSpec(name="s", space=spaces.space(), places=places, storage=root / "store")
    made.save()
    Ledger(made.resolved_ledger_url, witness=made.ledger_witness).close()
    try:
        yield made
    finally:
        shutil.rmtree(root)


@contextmanager
def another_user() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
    if bound.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@needs_root
def test_a_storage_that_takes_no_writes_is_refused_before_anything_begins_also_by_the_dry_run(spec: SweepSpec) -> None:
    new = spec.model_copy(update={"name": "new"})
    check_writable(new)
    with read_only(spec.storage_dir), pytest.raises(BadInput, match=r"--storage .*cannot be written"):
        check_writable(new)
    with read_only(spec.storage_dir), pytest.raises(BadInput, match=r"--state .*cannot be written"):
        check_writable(new.model_copy(update={"storage": spec.storage_dir.parent / "else", "state": spec.storage_dir}))


@needs_root
def test_a_ledger_is_read_on_a_storage_that_takes_no_writes(spec: SweepSpec) -> None:
    with read_only(spec.storage_dir):
        ledger = Ledger(spec.resolved_ledger_url, read_only=True)
        assert ledger.lines() == ()
        ledger.close()


@needs_root
@pytest.mark.parametrize("command", ["status", "resume", "report"])
def test_another_users_sweep_is_one_message_that_names_the_file(command: str, spec: SweepSpec, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "no-such-sweep", "--storage", str(spec.storage)])  # what is imported on the way is imported by its owner
    capsys.readouterr()
    with another_user():
        assert main([command, "s", "--storage", str(spec.storage)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"dpsweep: {spec.sweep_dir / 'spec.json'}: permission denied; it belongs to another user")
    assert said.count("\n") == 1


@needs_root
def test_another_users_ledger_is_refused_before_a_sweep_begins_beside_it(spec: SweepSpec) -> None:
    spec.storage_dir.chmod(0o777)
    spec.places.data_dir.parent.chmod(0o777)
    with another_user(), pytest.raises(BadInput, match=r"ledger\.sqlite belongs to user 0 and cannot be written"):
        check_writable(spec.model_copy(update={"name": "new"}))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_stream_cannot_show_is_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    document = {"name": "Zoë, ε ≤ 1"}
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))

    def show(args: object) -> int:
        print("ε = 1")
        print_json(document)
        return 0

    parser = OneLineParser()
    parser.set_defaults(execute=show)
    assert execute(parser, []) == 0
    first, rest = written.getvalue().decode(encoding).split("\n", 1)
    assert first == ("ε = 1" if encoding == "utf-8" else "\\u03b5 = 1")
    assert json.loads(rest) == document
