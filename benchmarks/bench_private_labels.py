"""What it costs to keep labels private: PCKh@0.5 of feature DP, its control and its floor with labels public and private.

    python benchmarks/bench_private_labels.py [--runs 3] [--epsilon 8] [--cache-dir FOLDER] [--out benchmarks/results/private_labels.json]

The trial is the preset `quick` with fixed settings, on embedded data. A run of feature DP has a fresh key, so that its spread is
that of sampling and noise; floor and control draw no private randomness and run once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from dpcore.config import Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.data.catalog import open_dataset
from dpcore.pose.pckh import PckhState
from dpcore.privacy.accounting import plan_privacy
from dpcore.privacy.randomness import SweepKey
from dpcore.train.handout import Handout
from dpcore.train.trainer import run_trial
from dpcore.train.trial_data import open_trial_data
from search_spaces.loader import load_space

SETTINGS: dict[str, Any] = {"clip_norm": 0.3, "optimizer.learning_rate": 8e-3, "split": "blur_3"}
RUNTIME = RuntimeFlags(report_every_steps=1000, checkpoint_every_steps=1000)


def config_of(labels: str, epsilon: float, **overrides: Any) -> TrialConfig:
    """A feature trial of the preset."""
    space = load_space("quick")
    teacher: dict[str, Any] = {} if labels == "private" else {"teacher": {}}
    return space.trial_config(epsilon, {"method": "feature", **SETTINGS}, overrides={"labels": labels, **teacher, **overrides})


def floor_of(config: TrialConfig) -> TrialConfig:
    """Its public-view stage alone."""
    private_only = {"epsilon", "delta", "clip_norm", "public_weight", "private_weight", "public_batch_size", "subspace"}
    values = config.model_dump(mode="json", exclude=private_only)
    return parse_config(TrialConfig, {**values, "method": "public_only", "start": "public_view"})


def score(config: TrialConfig, places: Places) -> float:
    """PCKh@0.5 of one run, in percent."""
    plan = plan_privacy(config, places.cache_dir)
    *_, last = run_trial(config, RUNTIME, Handout(places=places, trial_id="bench", key=SweepKey.fresh(), folder=None, plan=plan))
    return 100 * last.metrics["val/pckh_50"]


def teacher_quality(config: TrialConfig, places: Places) -> dict[str, float]:
    """The share of joints that the teacher labels, and of its labels those within half a head of the truth, in percent."""
    views = open_trial_data(config, places, RUNTIME).views
    true = open_dataset(config.data.private, places)
    if views is None:
        raise ValueError("the preset has no split")
    both = views.labels.visible & true.visible
    hits = PckhState.of(views.labels.keypoints, true.keypoints, both, true.head_size_px)
    return {"labelled_percent": round(100 * float(views.labels.visible.mean()), 1), "hits_percent": round(100 * hits.mean(0.5), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--cache-dir", type=Path, default=None, help="default: a temporary folder, everything made anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_labels.json")
    args = parser.parse_args()
    document: dict[str, Any] = {"epsilon": args.epsilon, "runs": args.runs, "settings": SETTINGS}
    with tempfile.TemporaryDirectory() as temporary:
        places = Places(data_dir=Path(temporary), cache_dir=args.cache_dir or Path(temporary))
        for labels in ("public", "private"):
            config = config_of(labels, args.epsilon)
            feature = [score(config, places) for _ in range(args.runs)]
            document[f"labels_{labels}"] = {
                "feature": round(statistics.mean(feature), 1),
                "feature_spread": round(statistics.stdev(feature), 1) if args.runs > 1 else None,
                "control": round(score(config.changed(private_weight=0.0), places), 1),
                "floor": round(score(floor_of(config), places), 1),
            }
            print(labels, document[f"labels_{labels}"], flush=True)
        document["teacher"] = teacher_quality(config_of("private", args.epsilon), places)
    args.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
