"""claim.json: what a model that leaves promises, what choosing its settings cost, and how good it is, beside its weights.

    model/model.safetensors  model/model.json  model/claim.json  model/README.md

The file names the weights that it speaks of. A copy stands in model.json, and in the header of the weights that leave
(`sweeps.models.exporting`), so that a claim which was cut off or altered is noticed. Weights without it promise nothing that anybody could
check, and weights beside another one's claim are refused. A claim is not signed: who changes every copy alike is not found out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config import Part, parse_config
from dpcore.durable import read_json, replace_file, write_json
from dpcore.errors import BadInput, Corrupt, Refused
from dpcore.privacy.claim import PrivacyClaim
from dpcore.train.header import read_header
from sweeps.models.model_card import CARD_FILE, render_card
from sweeps.records.export import Price

if TYPE_CHECKING:
    from dpcore.config import RuntimeFlags, TrialConfig
    from sweeps.records.results import SweepResults
    from sweeps.records.spec import SweepSpec

CLAIM_FILE = "claim.json"
MODEL_FOLDER, DOCUMENT_FILE, WEIGHTS_FILE = "model", "model.json", "model.safetensors"
CLAIM_KEY = "claim"
"""Of the copies in model.json and in the header of the weights."""


class ModelClaim(Part):
    """What stands in claim.json."""

    claim: PrivacyClaim
    price: Price
    scores: dict[str, float | None]
    weights_digest: str

    def document(self) -> dict[str, Any]:
        """As `dpsweep claim --json` prints it."""
        one = self.claim
        return {
            "epsilon": one.epsilon,
            "delta": one.delta,
            "unit": one.unit,
            "relation": one.relation,
            "public": list(one.public),
            "price": self.price.model_dump(mode="json"),
            "scores": self.scores,
            "paragraph": one.paragraph(),
        }

    def check_may_leave(self, what: str) -> None:
        """Refuses what may not leave: a run without privacy on protected people, whose weights show them.

        Raises:
            Refused: it is one.
        """
        if self.claim.no_guarantee is not None and not self.claim.stand_in:
            raise Refused(f"{what}: {self.claim.no_guarantee} The people are protected, so it is neither exported nor registered")

    def text(self) -> str:
        """For a person who signs it."""
        scores = ", ".join(f"{name} {100 * value:.2f} %" for name, value in self.scores.items() if value is not None)
        return f"{self.claim.headline()}\n{self.claim.paragraph()}\nChoosing it: {self.price.text}\nScores: {scores or 'none'}"


def price_of(spec: SweepSpec, results: SweepResults) -> Price:
    """What choosing the best trials of a sweep cost."""
    from sweeps.pricing.regimes import basis_of, headline

    epsilon = results.sweep_epsilon if spec.space.sweep.regime.is_promise else None
    shown = results.composed_epsilon if results.sweep_epsilon is None else results.sweep_epsilon
    text = headline(basis_of(spec), delta=results.delta, epsilon=shown)
    return Price(accounting=results.accounting, epsilon=epsilon, delta=results.delta, text=text)


def save_claim(folder: Path, claim: PrivacyClaim, price: Price) -> ModelClaim:
    """Writes claim.json and the model card into a model's folder (or the `model/` in it), for the weights and scores that lie there,
    and a copy of the claim into model.json.

    Raises:
        BadInput: no model is there.
    """
    found = _model_in(folder)
    document = read_json(found / DOCUMENT_FILE)
    meta = document["meta"]
    metric = meta.get("metric")
    own = {} if metric in (None, "pckh_50", "pckh_10") else {str(metric): meta.get("score")}
    scores = {name: meta.get(name) for name in ("pckh_50", "pckh_10")} | own
    made = ModelClaim(claim=claim, price=price, scores=scores, weights_digest=document["weights_digest"])
    card = render_card(document, claim=claim, price=price, scores=scores, weights=found / WEIGHTS_FILE)
    write_json(found / DOCUMENT_FILE, {**document, CLAIM_KEY: made.model_dump(mode="json")})
    replace_file(found / CLAIM_FILE, (made.model_dump_json(indent=1) + "\n").encode())
    replace_file(found / CARD_FILE, card.encode())
    return made


def load_claim(path: Path) -> ModelClaim:
    """The claim of the model in a folder, a trial's folder, or a claim.json by itself.

    Raises:
        BadInput: no model there, or its claim was cut off. Corrupt: the claim does not read, was altered, or speaks of other weights.
    """
    file = path if path.is_file() else _model_in(path) / CLAIM_FILE
    if not file.is_file():
        raise BadInput(
            f"{file.parent}: the model has no {CLAIM_FILE}: its claim was cut off (or its sweep has not come to its end, which writes it), "
            f"and {_left_of_claim(file.parent)}; bring the file back from where the model came from"
        )
    try:
        made = parse_config(ModelClaim, json.loads(file.read_bytes()))
    except ValueError as error:
        raise Corrupt(f"{file} does not read as a model's claim ({error}); bring it back from where the model came from") from None
    document = file.parent / DOCUMENT_FILE
    if document.is_file() and read_json(document)["weights_digest"] != made.weights_digest:
        raise Corrupt(f"{file} speaks of other weights than those beside it; bring it back from where the model came from")
    altered = [where for where, copy in _copies(file.parent).items() if copy != made.model_dump(mode="json")]
    if altered:
        raise Corrupt(f"{file} and its copy in {altered[0]} differ: one was altered; bring both back from where the model came from")
    return made


def _copies(folder: Path) -> dict[str, Any]:
    """File name → the copy of the claim that travels in it."""
    found: dict[str, Any] = {}
    if (folder / DOCUMENT_FILE).is_file():
        found[DOCUMENT_FILE] = read_json(folder / DOCUMENT_FILE).get(CLAIM_KEY)
    if (folder / WEIGHTS_FILE).is_file():
        text = read_header(folder / WEIGHTS_FILE).texts.get(CLAIM_KEY)
        found[WEIGHTS_FILE] = None if text is None else json.loads(text)
    return {name: copy for name, copy in found.items() if copy is not None}


def _left_of_claim(folder: Path) -> str:
    """What copies still say of a claim whose file is gone."""
    for name, copy in _copies(folder).items():
        try:
            return f"a copy in {name} says: {parse_config(ModelClaim, copy).claim.headline()}"
        except ValueError as error:
            return f"the copy in {name} does not read ({error})"
    return "nothing is known of what it promises"


def warning_about(folder: Path) -> str | None:
    """What to say of a model before it is used: that its claim is missing or not its own; None where it has one."""
    try:
        load_claim(folder)
    except (BadInput, Corrupt) as error:
        return str(error)
    return None


def claim_of_training(config: TrialConfig, spec: SweepSpec | None, *, places: Any, runtime: RuntimeFlags) -> PrivacyClaim:
    """The claim of a model that `train` makes: of a private run by itself. Feature claims list every split of the sweep's policy,
    whose views an attacker may hold."""
    from dpcore.data.catalog import open_dataset
    from dpcore.privacy.accounting import plan_privacy
    from dpcore.privacy.claim import claim_of
    from dpcore.privacy.randomness import generator_name

    part = "proxy" if config.is_rehearsal else "private"
    names = {part: config.data.in_private_place, "public": config.data.public, "validation": config.data.validation}
    manifests = {name: open_dataset(dataset, places).manifest for name, dataset in names.items()}
    claim = claim_of(config, plan_privacy(config, places.cache_dir), manifests, randomness=generator_name(runtime))
    if config.split is None or spec is None:
        return claim
    return claim.with_views(spec.space.splits_in_use, None, None)


def _model_in(folder: Path) -> Path:
    found = next((place for place in (folder, folder / MODEL_FOLDER) if (place / DOCUMENT_FILE).is_file()), None)
    if found is None:
        raise BadInput(f"{folder}: no model there; give the folder of a model, a finished trial or a training")
    return found
