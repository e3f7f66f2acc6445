"""One trial: train it from a config, score a trained model, run the public stage alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpcore.config import Places
from dpcore.errors import BadInput, Corrupt, Refused, Unavailable
from sweeps.records.spec import DEFAULT_STORAGE

if TYPE_CHECKING:
    from dpcore.train.reports import Report
    from sweeps.models.claims import ModelClaim
    from sweeps.models.retrain import TrainRequest
    from sweeps.records.export import Price
    from sweeps.records.spec import SweepSpec

RESULT_KEYS = ("epsilon_target", "epsilon_spent", "delta", "method", "pckh_50", "pckh_10", "metric", "score", "trial_id", "fingerprint")
How = Literal["fresh", "resume", "new_attempt", "replay"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        document: what `dpsweep train --json` prints: ε, δ, method, scores as fractions, trial id, fingerprint, and as `model` the
            registered version (`models:/NAME/VERSION`) or None.
        folder: of the model; None where a replay kept none.
        not_registered: why MLflow has no version of the model; None where it has, or where a replay repeated one that was there.
    """

    document: dict[str, Any]
    folder: Path | None
    not_registered: str | None = None


def train(
    config: str | Path,
    *,
    out: str | Path | None = None,
    how: How = "fresh",
    ledger: str | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Trained:
    """Trains from best.yaml: a new private run with fresh noise, charged to the ledger that the config came from.

    The model gets its claim, and goes into the MLflow of its sweep as a run and a registered version. An MLflow that does not answer
    fails no training; `how="resume"` on the finished folder registers it later.

    Args:
        config: a file that `best(..., out=...)` wrote.
        out: folder of the model; default: the config's name with `-model`. A replay keeps a model only where `out` is given.
        how: `fresh`: a new release, charged. `resume`: an interrupted training in its folder, no new charge. `new_attempt`: the
            same where it can't be repeated, the steps from the checkpoint on charged again. `replay`: the very same release, no charge.
        ledger: SQLAlchemy URL of another ledger to charge, on purpose.
        data_dir, cache_dir: default: the sweep's, else as for `Places.of`.

    Raises:
        BadInput: no such file, or a wrong key in it. Refused: the folder exists, or a cap would be passed.
        NotReplayable: the same release can't be repeated here. Unavailable: ledger or key can't be reached.
    """
    from sweeps.models.retrain import TrainRequest, origin_spec, train_fresh, train_replay, train_resumed
    from sweeps.records.export import read_exported

    path, keeps = Path(config), how != "replay" or out is not None
    heard: list[Report] = []
    exported = read_exported(path)
    spec = origin_spec(exported, needed=how == "replay" or (ledger is None and exported.config.spends_privacy))
    request = TrainRequest(
        exported=exported,
        spec=spec,
        places=_places(spec, data_dir, cache_dir),
        out=Path(out) if out is not None else Path(f"{path.stem}-model"),
        ledger_url=ledger,
        on_report=heard.append,
    )
    if how == "replay":
        return Trained(document=train_replay(request, keep=keeps), folder=request.out if keeps else None)
    document = train_fresh(request) if how == "fresh" else train_resumed(request, new_attempt=how == "new_attempt")
    return registered(request, document, heard)


def registered(request: TrainRequest, document: dict[str, Any], heard: Sequence[Report]) -> Trained:
    """A finished training, logged and registered in the MLflow of its sweep, or with the reason why not."""
    from sweeps.records.results import CurvePoint
    from sweeps.tracking.registry import FinishedTraining, log_training

    if request.spec is None:
        reason = "the sweep that the config came from is not at hand, and with it its experiment"
        return Trained(document={**document, "model": None}, folder=request.out, not_registered=reason)
    curve = [CurvePoint.of(report) for report in heard]
    training = FinishedTraining(trial_id=document["trial_id"], config=request.config, folder=request.out, curve=curve)
    try:
        version = log_training(request.spec, training)
    except (Corrupt, Refused, Unavailable) as error:  # the model is there and charged: said, and done again by a resume
        return Trained(document={**document, "model": None}, folder=request.out, not_registered=str(error))
    return Trained(document={**document, "model": version}, folder=request.out)


def _places(spec: SweepSpec | None, data_dir: str | Path | None, cache_dir: str | Path | None) -> Places:
    """What is given; else the sweep's; else the default."""
    if spec is None:
        return Places.of(data_dir, cache_dir)
    return Places.of(spec.places.data_dir if data_dir is None else data_dir, spec.places.cache_dir if cache_dir is None else cache_dir)


def evaluate(
    checkpoint: str | Path,
    data: str | Path,
    *,
    metric: str | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    storage: str | Path = DEFAULT_STORAGE,
    tracking_uri: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The scores of a trained model on a PUBLIC dataset: what `dpsweep evaluate --json` prints.

    Args:
        checkpoint: folder of a finished trial or of its model; in a bucket the trial's URI; in MLflow as for `claim`.
        data: a dataset's name or folder.
        metric: `pckh_50`, `pck_bbox_20`, `oks_ap`, ...; None: the one that the model's sweep maximised.
        data_dir, cache_dir: as for `Places.of`.
        storage, tracking_uri: as for `claim`.
        on_progress: hears how many of how many people are done, where several views are fused for each.

    Returns:
        `metric`, its `score` as a fraction, `n` people that it counts and its standard error `stderr` over them (None for OKS-AP, which is
        no mean over people). `pckh_50` and `pckh_10` (None without head sizes) and every other metric that the data give as `scores`. What
        was written down when the model was trained (ε, δ, method, trial id). Of a model whose claim was cut off `epsilon_spent` is
        None, which is said on stderr too.

    Raises:
        BadInput: no model or no dataset there, or crops of another size. Refused: the dataset is protected.
    """
    from sweeps.models.evaluation import score_model
    from sweeps.tracking.registry import model_at_hand

    with model_at_hand(str(checkpoint), storage=storage, tracking_uri=tracking_uri) as folder:
        hears = {} if on_progress is None else {"on_progress": on_progress}
        scored = score_model(folder, str(data), Places.of(data_dir, cache_dir), metric=metric, **hears)
    return {key: scored.meta.get(key) for key in RESULT_KEYS} | {
        "pckh_50": scored.scores.get("pckh_50"),
        "pckh_10": scored.scores.get("pckh_10"),
        "metric": scored.metric,
        "score": scored.scores[scored.metric],
        "n": scored.people,
        "stderr": scored.stderr,
        "scores": dict(scored.scores),
    }


def claim(path: str | Path, *, storage: str | Path = DEFAULT_STORAGE, tracking_uri: str | None = None) -> ModelClaim:
    """What a model promises, what choosing it cost, and its scores: `.document()` is what `dpsweep claim --json` prints.

    Args:
        path: Folder of a model, a training or a finished trial, in a bucket its URI, in MLflow `models:/NAME/VERSION` or
            `models:/NAME@ALIAS`; or a claim.json.
        storage: Folder of the sweeps, whose own MLflow is asked for `models:/...`.
        tracking_uri: Of another MLflow; None: `MLFLOW_TRACKING_URI`, else the storage's own.

    Raises:
        BadInput: No model there, or its claim was cut off. Corrupt: The claim does not read, or speaks of other weights.
        Unavailable: Bucket or MLflow does not answer.

    >>> claim("never_made")
    Traceback (most recent call last):
    dpcore.errors.BadInput: never_made: no model there; give the folder of a model, a finished trial or a training
    """
    from sweeps.models.claims import load_claim
    from sweeps.tracking.registry import model_at_hand

    with model_at_hand(str(path), storage=storage, tracking_uri=tracking_uri) as folder:
        return load_claim(folder)


def pretrain(
    config: str | Path, *, out: str | Path | None = None, data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> dict[str, Any]:
    """Runs the public stage of a config (PUBLIC data alone, no budget) and scores it: where a private run starts from.

    Args:
        config: best.yaml, a preset's name or a space file.
        out: folder that takes the public model; None keeps it in the cache alone, for every later trial.
        data_dir, cache_dir: as for `Places.of`.

    Raises:
        BadInput: the config does not read. Refused: `out` exists.
    """
    from sweeps.models.evaluation import pretrain_public

    folder = None if out is None else Path(out)
    if folder is not None and folder.exists():
        raise Refused(f"{folder}: exists already and is not overwritten; give --out a new folder")
    values, price = _values_of(str(config))
    trained, scores, network = pretrain_public(values, Places.of(data_dir, cache_dir), out=folder, price=price)
    return dict.fromkeys(RESULT_KEYS) | {
        "epsilon_spent": 0.0,
        "method": trained.method,
        "pckh_50": scores.get("pckh_50"),
        "pckh_10": scores.get("pckh_10"),
        "scores": dict(scores),
        "fingerprint": trained.fingerprint(),
        "network": network,
    }


def _values_of(name_or_path: str) -> tuple[dict[str, Any], Price]:
    """The values of `trial` in a space, or of `config` in a best.yaml, and what choosing them cost."""
    from search_spaces.loader import load_space
    from search_spaces.presets import preset_names
    from sweeps.records.export import UNKNOWN, read_exported

    path = Path(name_or_path)
    if (
        name_or_path not in preset_names()
        and path.is_file()
        and any(line.startswith("config:") for line in path.read_text(encoding="utf-8").splitlines())
    ):
        exported = read_exported(path)
        return exported.config.model_dump(mode="json"), UNKNOWN if exported.release is None else exported.release.price
    return load_space(name_or_path).trial, UNKNOWN


def how_of(*, resume: bool, replay: bool, new_attempt: bool) -> How:
    """`how` of `train` as the command's switches say it.

    Raises:
        BadInput: they contradict each other.
    """
    if new_attempt and not resume:
        raise BadInput("--new-attempt goes with --resume: it continues a training that cannot be replayed")
    if replay:
        return "replay"
    return "new_attempt" if new_attempt else "resume" if resume else "fresh"
