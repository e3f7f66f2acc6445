"""One trial: train it from a config, score a trained model, run the public stage alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dpcore.config import Places
from dpcore.errors import BadInput, Refused

if TYPE_CHECKING:
    from sweeps.models.claims import ModelClaim
    from sweeps.records.spec import SweepSpec

RESULT_KEYS = ("epsilon_target", "epsilon_spent", "delta", "method", "pckh_50", "pckh_10", "trial_id", "fingerprint")
How = Literal["fresh", "resume", "new_attempt", "replay"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training came to.

    Attributes:
        document: what `dpsweep train --json` prints: ε, δ, method, scores as fractions, trial id, fingerprint.
        folder: of the model; None where a replay kept none.
    """

    document: dict[str, Any]
    folder: Path | None


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
    exported = read_exported(path)
    spec = origin_spec(exported, needed=how == "replay" or (ledger is None and exported.config.spends_privacy))
    request = TrainRequest(
        exported=exported,
        spec=spec,
        places=_places(spec, data_dir, cache_dir),
        out=Path(out) if out is not None else Path(f"{path.stem}-model"),
        ledger_url=ledger,
    )
    if how == "replay":
        document = train_replay(request, keep=keeps)
    else:
        document = train_fresh(request) if how == "fresh" else train_resumed(request, new_attempt=how == "new_attempt")
    return Trained(document=document, folder=request.out if keeps else None)


def _places(spec: SweepSpec | None, data_dir: str | Path | None, cache_dir: str | Path | None) -> Places:
    """What is given; else the sweep's; else the default."""
    if spec is None:
        return Places.of(data_dir, cache_dir)
    return Places.of(spec.places.data_dir if data_dir is None else data_dir, spec.places.cache_dir if cache_dir is None else cache_dir)


def evaluate(
    checkpoint: str | Path, data: str | Path, *, data_dir: str | Path | None = None, cache_dir: str | Path | None = None
) -> dict[str, Any]:
    """PCKh of a trained model on a PUBLIC dataset: what `dpsweep evaluate --json` prints.

    Args:
        checkpoint: folder of a finished trial or of its model; in a bucket the trial's URI.
        data: a dataset's name or folder.
        data_dir, cache_dir: as for `Places.of`.

    Returns:
        `pckh_50` and `pckh_10` as fractions, and what was written down when the model was trained (ε, δ, method, trial id).

    Raises:
        BadInput: no model or no dataset there, or crops of another size. Refused: the dataset is protected.
    """
    from sweeps.models.evaluation import score_model
    from sweeps.records.publication import checkpoint_at_hand

    with checkpoint_at_hand(str(checkpoint)) as folder:
        scored = score_model(folder, str(data), Places.of(data_dir, cache_dir))
    return {key: scored.meta.get(key) for key in RESULT_KEYS} | {"pckh_50": scored.state.mean(0.5), "pckh_10": scored.state.mean(0.1)}


def claim(path: str | Path) -> ModelClaim:
    """What a model promises, what choosing it cost, and its scores.

    Args:
        path: Folder of a model, a training or a finished trial, in a bucket its URI, or a claim.json.

    Raises:
        BadInput: No model there, or its claim was cut off. Corrupt: The claim does not read, or speaks of other weights.
    """
    from sweeps.models.claims import load_claim
    from sweeps.records.publication import checkpoint_at_hand

    with checkpoint_at_hand(str(path)) as folder:
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
    trained, state = pretrain_public(_values_of(str(config)), Places.of(data_dir, cache_dir), out=folder)
    return dict.fromkeys(RESULT_KEYS) | {
        "epsilon_spent": 0.0,
        "method": trained.method,
        "pckh_50": state.mean(0.5),
        "pckh_10": state.mean(0.1),
        "fingerprint": trained.fingerprint(),
    }


def _values_of(name_or_path: str) -> dict[str, Any]:
    """The values of `trial` in a space, or of `config` in a best.yaml."""
    from search_spaces.loader import load_space
    from search_spaces.presets import preset_names
    from sweeps.records.export import read_exported

    path = Path(name_or_path)
    if (
        name_or_path not in preset_names()
        and path.is_file()
        and any(line.startswith("config:") for line in path.read_text(encoding="utf-8").splitlines())
    ):
        return read_exported(path).config.model_dump(mode="json")
    return load_space(name_or_path).trial


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
