"""The command line: answers, exit codes, and one message for every mistake."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from sweeps.cli import main

REPOSITORY = Path(__file__).resolve().parents[3]
RUN = ("--sampling-prob", "0.01", "--steps", "1000", "--delta", "1e-5", "--noise-multiplier", "5")
Arrays = dict[str, np.ndarray]


@pytest.fixture
def save_predictions(tmp_path: Path) -> Callable[..., Path]:
    """Saves ten people whose head size is 6 px, every prediction `off_px` to the right; arrays can be replaced."""

    def save(*, off_px: float = 0.0, **changes: np.ndarray) -> Path:
        keypoints = np.random.default_rng(0).integers(0, 64, (10, 16, 2)).astype(float)
        arrays: Arrays = {
            "predictions": keypoints + np.array([off_px, 0.0]),
            "keypoints": keypoints,
            "visible": np.ones((10, 16)),
            "head_boxes": np.tile(np.array([[10.0, 10.0], [16.0, 18.0]]), (10, 1, 1)),
        }
        path = tmp_path / "predictions.npz"
        np.savez(path, **{name: array for name, array in {**arrays, **changes}.items() if array is not None})
        return path

    return save


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main([*argv, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def mistake(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The message of a command that must end with exit 2; nothing may stand on stdout."""
    code: object
    try:
        code = main(list(argv))
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    return err


def test_help_and_spaces_need_neither_torch_nor_ray_nor_mlflow() -> None:
    program = (
        "import sys\n"
        "from sweeps.cli import build_parser\n"
        "from search_spaces.loader import load_space\n"
        "build_parser().format_help(), load_space('quick')\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'optuna', 'opacus', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_looking_at_a_sweep_imports_no_arrays_and_no_accountant() -> None:
    program = (
        "import sys\n"
        "import sweeps.api.ledgers, sweeps.api.sweep, sweeps.ledger.ledger, sweeps.ledger.summary, dpcore.privacy.composition\n"
        "import sweeps.report.status, sweeps.report.overview.standing, sweeps.report.overview.listing\n"
        "heavy = ('numpy', 'scipy', 'dp_accounting', 'torch', 'optuna', 'pyarrow', 'sqlalchemy', 'ray', 'mlflow')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def test_a_plan_imports_nothing_that_runs_trials(tmp_path: Path) -> None:
    program = (
        "import sys, dpsweep\n"
        f"print(dpsweep.plan('quick', epsilons=[0.8], trials=2, storage={str(tmp_path)!r}, cache_dir={str(tmp_path / 'cache')!r}))\n"
        "print([name for name in ('torch', 'ray', 'mlflow', 'optuna', 'opacus', 'matplotlib', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert "plan of quick" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_has_read_enough_ends_a_command_without_a_word() -> None:
    """`dpsweep ... | head -1`."""
    program = "import os, sys, time; sys.stdin.readline(); from sweeps.cli import main; sys.exit(main(['completion', 'bash']))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate("begin\n", timeout=60)
    assert (process.returncode, said) == (0, "")


def test_ray_submit_runs_the_same_arguments_with_address_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps import run

    seen = []
    monkeypatch.setattr(run, "execute", lambda parser, argv: seen.append(parser.parse_args(argv)) or 0)
    assert run.main(["quick", "--seed", "3"]) == 0
    assert (seen[0].space, seen[0].seed, seen[0].address) == ("quick", 3, "auto")


def test_how_a_sweep_runs_is_what_its_arguments_say() -> None:
    from sweeps.cli import build_parser
    from sweeps.commands.sweep_commands import build_spec

    given = ("--max-failures", "9", "--max-concurrent", "3", "--cpus-per-trial", "2", "--gpus-per-trial", "0.5")
    spec = build_spec(build_parser().parse_args(["run", "quick", *given]))
    assert (spec.max_failures, spec.max_concurrent, spec.cpus_per_trial, spec.gpus_per_trial) == (9, 3, 2.0, 0.5)
    assert (spec.runtime.device, spec.runtime.threads) == ("cuda", 2)
    assert build_spec(build_parser().parse_args(["run", "quick"])).max_failures == 2


def test_score_counts_like_pckh(capsys: pytest.CaptureFixture[str], save_predictions: Callable[..., Path]) -> None:
    # Head size 0.6 · 10 = 6 px: at 3 px every joint is a hit at 0.5, none at 0.1.
    scored = answer(capsys, "score", str(save_predictions(off_px=3.0)))
    assert (scored["mean"], scored["mean_at_01"]) == (100.0, 0.0)
    assert set(scored) == {"mean", "mean_at_01", "per_joint", "groups"}
    assert answer(capsys, "score", str(save_predictions(off_px=3.1)))["mean"] == 0.0


def test_score_leaves_a_joint_that_is_never_visible_without_a_number(
    capsys: pytest.CaptureFixture[str], save_predictions: Callable[..., Path]
) -> None:
    visible = np.ones((10, 16))
    visible[:, 9] = 0
    scored = answer(capsys, "score", str(save_predictions(visible=visible)))
    assert (scored["per_joint"]["head_top"], scored["groups"]["head"]) == (None, None)  # type: ignore[index]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"visible": None}, "missing visible"),
        ({"predictions": np.zeros((10, 17, 2))}, r"predictions must be (10, 16, 2)"),
        ({"predictions": np.zeros((0, 16, 2))}, "N of at least 1"),
        ({"visible": np.full((10, 16), 2)}, "0 and 1"),
        ({"visible": np.zeros((10, 16))}, "nothing to score"),
        ({"head_boxes": np.zeros((10, 2, 2))}, "head_boxes[0] has no size"),
        ({"keypoints": np.full((10, 16, 2), np.nan)}, "keypoints[0, 0] is not finite"),
        ({"keypoints": np.full((10, 16, 2), {})}, "cannot be read"),
    ],
)
def test_score_names_what_is_wrong_with_a_file(
    changes: Arrays, message: str, capsys: pytest.CaptureFixture[str], save_predictions: Callable[..., Path]
) -> None:
    assert message in mistake(capsys, "score", str(save_predictions(**changes)))


def test_score_of_no_file_or_another_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such file" in mistake(capsys, "score", str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("not an archive")
    assert "cannot be read" in mistake(capsys, "score", str(tmp_path / "text.npz"))
    savemat(tmp_path / "pred.mat", {"preds": np.zeros(3)})
    assert "this is a MATLAB file" in mistake(capsys, "score", str(tmp_path / "pred.mat"))
    (tmp_path / "pred.json").write_text("[]")
    assert "this is a JSON file" in mistake(capsys, "score", str(tmp_path / "pred.json"))


@pytest.mark.parametrize(
    ("argv", "key", "expected"),
    [
        (("--accountant", "rdp"), "epsilon", 0.2344),
        (("--accountant", "rdp", "--composed", "50"), "sweep_epsilon", 1.9393),
        (("--selection", "private", "--mean-trials", "10", "--shape", "1"), "sweep_epsilon", 0.5437),
        (("--selection", "private", "--mean-trials", "10", "--shape", "1"), "epsilon", 0.2344),
        (("--selection", "private", "--mean-trials", "50", "--shape", "1"), "sweep_epsilon", 0.6542),
        (("--selection", "private", "--mean-trials", "10", "--shape", "0"), "sweep_epsilon", 0.4430),
        (("--selection", "private", "--mean-trials", "10", "--shape", "0.5"), "sweep_epsilon", 0.4961),
    ],
)
def test_epsilon_reproduces_the_measured_prices(
    argv: tuple[str, ...], key: str, expected: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reference numbers: dp-accounting 0.6, q 0.01, noise multiplier 5, 1000 steps, delta 1e-5."""
    assert answer(capsys, "epsilon", *RUN, *argv)[key] == pytest.approx(expected, abs=6e-5)


def test_epsilon_of_a_replacement_claim_is_pld_alone(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("epsilon", "--sampling-prob", "0.06", "--steps", "60", "--delta", "1e-5", "--relation", "replace")
    assert answer(capsys, *argv, "--noise-multiplier", "3")["epsilon"] == pytest.approx(1.1745, abs=1e-4)
    found = answer(capsys, *argv, "--target-epsilon", "1")
    assert 0.999 < found["epsilon"] <= 1.0
    assert "RDP gives no bound" in mistake(capsys, *argv, "--noise-multiplier", "3", "--accountant", "rdp")


def test_epsilon_by_pld_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--sampling-prob", "0.04", "--steps", "2250", "--delta", "1e-5", "--noise-multiplier", "1.5")
    document = answer(capsys, "epsilon", *argv)
    assert document["epsilon"] == pytest.approx(6.76879, abs=1e-5)
    assert document["sweep_epsilon"] is None
    assert set(document) == {"epsilon", "delta", "noise_multiplier", "sweep_epsilon"}


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_the_noise_for_a_target_never_spends_more(accountant: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("--sampling-prob", "0.1", "--steps", "20", "--delta", "1e-4", "--target-epsilon", "1", "--accountant", accountant)
    document = answer(capsys, "epsilon", *argv)
    assert 0.999 < document["epsilon"] <= 1.0  # type: ignore[operator]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("epsilon", "--sampling-prob", "nan", "--steps", "1", "--delta", "0.1", "--noise-multiplier", "1"), "finite"),
        (("epsilon", "--sampling-prob", "1.5", "--steps", "1", "--delta", "0.1", "--noise-multiplier", "1"), "(0, 1]"),
        (("epsilon", "--sampling-prob", "0.5", "--steps", "0", "--delta", "0.1", "--noise-multiplier", "1"), "at least 1"),
        (("epsilon", "--sampling-prob", "0.5", "--steps", "1", "--delta", "1", "--noise-multiplier", "1"), "(0, 1)"),
        (("epsilon", "--sampling-prob", "0.5", "--steps", "1", "--delta", "0.1", "--target-epsilon", "-1"), "above 0"),
        (("epsilon", "--sampling-prob", "0.5", "--steps", "1", "--delta", "0.1"), "--noise-multiplier"),
        (("epsilon", *RUN, "--mean-trials", "10"), "add --selection private"),
        (("epsilon", *RUN, "--selection", "private", "--mean-trials", "10"), "--shape"),
        (("epsilon", *RUN, "--selection", "private", "--mean-trials", "0.5", "--shape", "1"), "above 1"),
        (("run", "quick", "--epsilons", "0.8,0"), "above 0"),
        (("run", "quick", "--epsilons", "0.8,nan"), "finite"),
        (("run", "quick", "--epsilons", "0.8,0.8"), "each"),
        (("run", "quick", "--name", "../up"), "--name"),
        (("run", "quick", "--trials", "0"), "at least 1"),
        (("run", "quick", "--set", "clip_norm"), "path=value"),
        (("run", "quick", "--set", "clip_norn=1"), "did you mean"),
        (("run", "no_such_space",), "no_such_space"),
        (("run", "quick", "--tracking-uri", "./mlruns"), "expected http"),
        (("run", "quick", "--storage", "s3://bucket/x"), "give --state DIR"),
        (("status", "never"), "no sweep never"),
        (("best", "never", "--epsilon", "1"), "no sweep never"),
        (("train", "no_such.yaml"), "no such file"),
        (("evaluate", "no_such_folder", "--data", "synthetic/validation"), "no such folder"),
        (("data", "info", "no_such_dataset"), "no_such_dataset"),
        (("frobnicate",), "invalid choice"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_and_leaves_nothing_behind(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in mistake(capsys, *argv)
    assert list(tmp_path.iterdir()) == []


def test_synthetic_data_is_made_described_and_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("data", "synth", "--domain", "public", "--count", "3", "--out", str(tmp_path / "tiny"), "--role", "PUBLIC")
    assert answer(capsys, *argv)["count"] == 3
    info = answer(capsys, "data", "info", "tiny", "--data-dir", str(tmp_path))
    assert (info["role"], info["protected"], info["count"]) == ("PUBLIC", False, 3)
    assert "exists already" in mistake(capsys, *argv)
    (tmp_path / "tiny" / "shard-00000.arrow").write_bytes(b"broken")
    assert "shard-00000.arrow" in mistake(capsys, "data", "info", "tiny", "--data-dir", str(tmp_path))
