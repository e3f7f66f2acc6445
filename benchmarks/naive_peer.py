"""What one writes from stock parts for the same sweep, beside dpsweep: seconds to the same validation score.

    python benchmarks/naive_peer.py [--seeds 3] [--folder DIR] [--out FILE]

The peer is Opacus' hooks, a Ray function trainable, Ray's OptunaSearch and its MLflowLoggerCallback, with people as JPEG files that each
trial decodes for each batch. Network, loss, optimizer, average, start, settings, number of trials and slots are those of dpsweep on
`naive_space.yaml`. Data and public start are made beforehand for both: they are in neither time. A round has a seed. The public start and
both searches follow from it. The peer buys its noise once, not in each trial, keeps one sampling rate, and trains the same layers on frozen
ones: it is written to be fast, from what the libraries offer.

The clock of a contender runs from its command to the end of the first trial with the target's score or more. The target of a round is the
lower of the two best scores, so that both reach it.

The account of a contender: `before_first_s` until its first trial begins, `trial_s` from a trial's begin to its end (mean; two run at a
time), `tail_s` from the end of the last trial to the end of the command. A trial's begin is its end less what the contender says it took.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SPACE = Path(__file__).parent / "naive_space.yaml"
SLOTS = 2
JPEG_QUALITY = 95
SEARCHED = re.compile(r"^\[\d+/\d+\]\s+e\S*\s.*?(?P<score>[\d.]+) %.*?(?P<seconds>[\d.]+) s$")
PEER = re.compile(r"^peer (?P<score>[\d.]+) (?P<seconds>[\d.]+)$")
PARTS = ("private", "validation")

Curve = list[tuple[float, float, float]]
"""(seconds since the command, score in percent, seconds that it took) at the end of each trial."""


def prepare(folder: Path) -> None:
    """Writes the data that both contenders read: datasets, and people as JPEGs."""
    import numpy as np
    from PIL import Image

    from dpcore.config import Places
    from dpcore.data.catalog import open_dataset

    places = Places(data_dir=folder / "data", cache_dir=folder / "cache")
    for part in PARTS:
        dataset = open_dataset(f"synthetic/{part}", places)
        (folder / part).mkdir()
        for index, image in enumerate(dataset.images(np.arange(len(dataset)))):
            Image.fromarray(image).save(folder / part / f"{index:05d}.jpg", quality=JPEG_QUALITY)
        np.savez(folder / part / "labels.npz", keypoints=dataset.keypoints, visible=dataset.visible)


def prepare_start(folder: Path, seed: int) -> float:
    """Trains the public start of a seed: into dpsweep's cache, and into a file for the peer. Returns its score, in percent."""
    from safetensors.torch import save_file

    from dpcore.config import Places
    from dpcore.data.catalog import open_dataset
    from dpcore.train.handout import Handout
    from dpcore.train.stages import public_network
    from dpcore.train.trainer import run_trial
    from search_spaces.loader import load_space
    from sweeps.records.references import public_start_config

    places = Places(data_dir=folder / "data", cache_dir=folder / "cache")
    config = public_start_config(load_space(str(SPACE)), seed=seed)
    *_, report = run_trial(config, runtime_flags(), Handout(places=places, trial_id="start", key=None, folder=None, plan=None))
    network = public_network(config, open_dataset(config.data.public, places), places=places, runtime=runtime_flags())
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / f"start-{seed}.safetensors")
    return 100 * float(report.metrics["val/pckh_50"])


def runtime_flags() -> Any:
    """One thread a trial."""
    from dpcore.config import RuntimeFlags

    return RuntimeFlags(threads=1)


def peer_trial(settings: dict[str, float], folder: Path, seed: int, noise_multiplier: float) -> None:
    """One trial of the peer."""
    import warnings

    import numpy as np
    import torch
    from opacus import PrivacyEngine
    from PIL import Image
    from ray import tune
    from safetensors.torch import load_file
    from torch.utils.data import DataLoader, Dataset

    from dpcore.config import Places
    from dpcore.data.catalog import open_dataset
    from dpcore.model.network import build_network, codec_of
    from dpcore.pose.loss import simcc_loss
    from dpcore.train.evaluator import metrics_of
    from search_spaces.loader import load_space
    from sweeps.records.references import public_start_config

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    config = public_start_config(load_space(str(SPACE)), seed=seed)
    places = Places(data_dir=folder / "data", cache_dir=folder / "cache")

    class People(Dataset[Any]):
        def __init__(self, part: str) -> None:
            labels = np.load(folder / part / "labels.npz")
            self.part, self.keypoints, self.visible = folder / part, labels["keypoints"], labels["visible"]

        def __len__(self) -> int:
            return len(self.keypoints)

        def __getitem__(self, index: int) -> Any:
            image = np.asarray(Image.open(io.BytesIO((self.part / f"{index:05d}.jpg").read_bytes())))
            pixels = torch.from_numpy(image.copy()).permute(2, 0, 1).float().div_(127.5).sub_(1.0)
            return pixels, torch.from_numpy(self.keypoints[index]), torch.from_numpy(self.visible[index])

    class OnFrozen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            network = build_network(config.model, places, generator=torch.Generator())
            network.load_state_dict(load_file(folder / f"start-{seed}.safetensors"))
            split = network.split("early")
            self.stem, self.tail = split.stem.requires_grad_(False), split.tail

        def forward(self, images: torch.Tensor) -> Any:
            with torch.no_grad():
                features = self.stem(images)
            return self.tail(features)

    model, codec, steps = OnFrozen(), codec_of(config.model), config.stages.private.steps
    private = DataLoader(People("private"), batch_size=config.stages.private.expected_batch_size)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=settings["learning_rate"])
    module, optimizer, loader = PrivacyEngine().make_private(
        module=model, optimizer=optimizer, data_loader=private, noise_multiplier=noise_multiplier, max_grad_norm=settings["clip_norm"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    averaging: Any = torch.optim.swa_utils.get_ema_multi_avg_fn  # torch gives it no types
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=averaging(config.ema_decay or 0.0))
    step = 0
    while step < steps:
        for images, keypoints, visible in loader:
            optimizer.zero_grad()
            along_x, along_y = module(images)
            torch.autograd.backward(simcc_loss(along_x, along_y, keypoints, visible, codec).mean())
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            step += 1
            if step == steps:
                break
    found = []
    with torch.no_grad():
        for images, _, _ in DataLoader(People("validation"), batch_size=256):
            logits = average.module(images)
            found.append((codec.decode(*logits), codec.confidence(*logits)))
    predicted = torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])
    metrics = metrics_of(predicted, dataset=open_dataset("synthetic/validation", places), per_joint=False)
    tune.report({"score": metrics["val/pckh_50"]})


def run_peer(folder: Path, seed: int) -> None:
    """The peer's sweep, as a tutorial shows it; a line on stderr at the end of each trial."""
    import ray
    from opacus.accountants.utils import get_noise_multiplier
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    from search_spaces.loader import load_space

    space = load_space(str(SPACE))
    trial = space.trial
    stage, people = trial["stages"]["private"], trial["data"]["nominal_examples"]
    rate = 1 / -(-people // stage["expected_batch_size"])
    noise = get_noise_multiplier(
        target_epsilon=space.sweep.epsilons[0], target_delta=space.delta, sample_rate=rate, steps=stage["steps"], accountant="prv"
    )

    class Said(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            result = trial.last_result
            print(f"peer {100 * result['score']:.3f} {result['time_total_s']:.1f}", file=sys.stderr, flush=True)

    ray.init(num_cpus=SLOTS, log_to_driver=False, include_dashboard=False)
    search = ConcurrencyLimiter(OptunaSearch(metric="score", mode="max", seed=seed), max_concurrent=SLOTS)
    kept = folder / f"peer-{seed}"
    kept.mkdir()
    tracker = MLflowLoggerCallback(tracking_uri=f"sqlite:///{kept / 'mlflow.db'}", experiment_name="peer")
    tune.Tuner(
        tune.with_resources(tune.with_parameters(peer_trial, folder=folder, seed=seed, noise_multiplier=noise), {"cpu": 1}),
        param_space={"clip_norm": tune.loguniform(0.1, 1.0), "learning_rate": tune.loguniform(4e-3, 2e-2)},
        tune_config=tune.TuneConfig(search_alg=search, num_samples=space.sweep.trials_per_epsilon or 1, metric="score", mode="max"),
        run_config=tune.RunConfig(storage_path=str(kept), name="peer", callbacks=[tracker, Said()], verbose=0),
    ).fit()
    ray.shutdown()


def watched(command: list[str], line: re.Pattern[str]) -> tuple[Curve, float]:
    """Runs a contender; gives the score of each trial with its time, and the time of the whole."""
    began, curve = time.monotonic(), Curve()
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}  # else Ray writes one into the home of whoever runs this
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment) as contender:
        said = []
        for one in contender.stderr or ():
            said.append(one)
            if match := line.match(one.strip()):
                curve.append((time.monotonic() - began, float(match["score"]), float(match["seconds"])))
                print(f"{curve[-1][0]:7.1f} s {curve[-1][1]:.1f} %", file=sys.stderr, flush=True)
    if contender.returncode or not curve:
        raise SystemExit(f"{command[0]} ended with {contender.returncode}:\n{''.join(said[-20:])}")
    return curve, time.monotonic() - began


def seconds_to(curve: Curve, target: float) -> float:
    """Until the first trial with the score."""
    return next(at for at, score, _ in curve if score >= target)


def account(curve: Curve, whole_s: float, *, to_target_s: float) -> dict[str, Any]:
    """Where the time of a contender went."""
    return {
        "to_target_s": round(to_target_s, 1),
        "whole_s": round(whole_s, 1),
        "before_first_s": round(min(at - seconds for at, _, seconds in curve), 1),
        "trial_s": round(statistics.mean(seconds for _, _, seconds in curve), 1),
        "tail_s": round(whole_s - max(at for at, _, _ in curve), 1),
        "trials": [(round(at, 1), score, seconds) for at, score, seconds in curve],
    }


def one_round(folder: Path, seed: int) -> dict[str, Any]:
    """Both contenders, one after the other. Features that an earlier round of dpsweep left are removed."""
    start = prepare_start(folder, seed)
    shutil.rmtree(folder / "cache" / "features", ignore_errors=True)
    ours = [str(Path(sys.executable).with_name("dpsweep")), "run", str(SPACE), "--name", f"ours-{seed}", "--seed", str(seed)]
    ours += ["--storage", str(folder / f"ours-{seed}"), "--data-dir", str(folder / "data"), "--cache-dir", str(folder / "cache")]
    load = [round(os.getloadavg()[0], 1)]
    curve, whole_s = watched(ours, SEARCHED)
    load.append(round(os.getloadavg()[0], 1))
    peer_curve, peer_whole_s = watched([sys.executable, __file__, "--peer", str(seed), "--folder", str(folder)], PEER)
    target = min(max(score for _, score, _ in one) for one in (curve, peer_curve))
    own_s, peer_s = seconds_to(curve, target), seconds_to(peer_curve, target)
    return {
        "seed": seed,
        "start_pckh_50": round(start, 1),
        "target_pckh_50": target,
        "load_before_each": load,
        "dpsweep": account(curve, whole_s, to_target_s=own_s),
        "peer": account(peer_curve, peer_whole_s, to_target_s=peer_s),
        "to_target_ratio": round(peer_s / own_s, 2),
        "whole_ratio": round(peer_whole_s / whole_s, 2),
    }


def main() -> None:
    """Prepares, runs the rounds in turn, prints and keeps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "naive_peer.json")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer is not None:
        run_peer(args.folder, args.peer)
        return
    with tempfile.TemporaryDirectory(prefix="dpsweep-peer-") as temporary:
        folder = Path(temporary)
        prepare(folder)
        rounds = [one_round(folder, seed) for seed in range(args.seeds)]
    document = {
        "space": SPACE.name,
        "cores": os.cpu_count(),
        "median_to_target_ratio": statistics.median(one["to_target_ratio"] for one in rounds),
        "median_whole_ratio": statistics.median(one["whole_ratio"] for one in rounds),
        "rounds": rounds,
    }
    args.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
