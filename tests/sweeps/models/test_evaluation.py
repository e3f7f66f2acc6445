"""Scores of a finished model are given on PUBLIC data, and never on people who are protected."""

from pathlib import Path

import numpy as np
import pytest
import spaces

from dpcore.config import Places
from dpcore.data.manifest import DatasetHeader
from dpcore.data.shards import write_shards
from dpcore.data.synthetic import draw_record
from dpcore.errors import Refused
from dpcore.model.network import build_network
from dpcore.privacy.randomness import PublicStreams
from dpcore.train.saved import save_model
from sweeps.models.evaluation import score_model, stderr_over_people
from sweeps.report.uncertainty import score_stderr


@pytest.fixture
def model(places: Places, tmp_path: Path) -> Path:
    """A network that nobody trained."""
    config = spaces.space().trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.1})
    network = build_network(config.model, places, generator=PublicStreams(0).torch_generator("initialisation"))
    save_model(tmp_path / "model", network, config=config, meta={"method": config.method})
    return tmp_path / "model"


@pytest.mark.parametrize("protected", [True, False])
def test_a_score_on_protected_people_is_a_release_and_refused(protected: bool, model: Path, places: Places) -> None:
    header = DatasetHeader(name="people", role="PRIVATE", protected=protected, height_px=64, width_px=64, origin="a test")
    write_shards(places.data_dir / "people", [draw_record("private", seed=1, index=index) for index in range(4)], header=header)
    if not protected:
        scored = score_model(model, "people", places)
        assert scored.people == 4
        assert scored.scores.keys() >= {"pckh_50", "pckh_10", "pck_bbox_20"}
        assert 0 <= scored.scores["pckh_50"] <= 1
        return
    with pytest.raises(Refused, match=r"people is protected.*no ledger holds"):
        score_model(model, "people", places)


def test_the_standard_error_is_the_bootstraps_of_the_report() -> None:
    generator = np.random.default_rng(13)
    counted = generator.integers(3, 15, 500)
    counts = np.stack([generator.binomial(counted, generator.uniform(0.3, 0.9, 500)), counted], axis=1)
    assert stderr_over_people(counts) == pytest.approx(score_stderr(counts), rel=0.05)
    assert stderr_over_people(counts[:1]) == 0.0
