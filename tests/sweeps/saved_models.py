"""Small networks with random weights and a claim, as trials leave them: predictions are arbitrary, and equal for equal crops."""

from pathlib import Path
from types import SimpleNamespace

import fake_trials
import spaces

from dpcore.config import Places
from dpcore.model.network import build_network
from dpcore.privacy.claim import claim_of
from dpcore.privacy.randomness import PublicStreams
from dpcore.train.saved import save_model
from sweeps.models.claims import save_claim
from sweeps.records.export import Price

PRICE = Price(accounting="composed", epsilon=7.3719, delta=1e-5, text="sweep epsilon 7.37 at delta 1e-05")


def save_network(folder: Path, places: Places, **changes: object) -> Path:
    """A model in `folder`, whose config has these changes; its people are protected."""
    config = spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.137}).model_copy(update=changes)
    network = build_network(config.model, places, generator=PublicStreams(7).torch_generator("initialisation"))
    meta = {"method": config.method, "trial_id": "e0.5-003", "pckh_50": 0.4137, "pckh_10": None, "seconds": 12.5}
    save_model(folder, network, config=config, meta={**meta, "metrics": {"train/loss": 3.1}, "runtime": {"threads": 1}})
    facts = {part: SimpleNamespace(name=part, role=part.upper(), protected=True) for part in ("private", "public")}
    save_claim(folder, claim_of(config, fake_trials.plan(config, None), facts), PRICE)
    return folder
