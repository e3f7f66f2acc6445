"""README.md of a model that leaves: what it promises, what choosing it cost, how good it is, how to use it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpcore.config.networks import backbone_traits
from dpcore.pose.skeleton import MPII_16, Skeleton
from dpcore.train.header import read_header

if TYPE_CHECKING:
    from dpcore.privacy.claim import PrivacyClaim
    from sweeps.records.export import Price

CARD_FILE = "README.md"
FRONT = "---\nlibrary_name: dpsweep\npipeline_tag: keypoint-detection\ntags: [pose-estimation, differential-privacy]\n---\n"
USE = """    dpsweep predict . PICTURE... --out keypoints.json --draw drawn
    dpsweep claim .

    import dpsweep

    found = dpsweep.predict(".", "photos")
    found.people[0].keypoints    # (K, 2) px of the picture

Pictures are RGB, 8 bits. The network sees one person at a time: give people's boxes with `--boxes` where a picture shows more than one.
`model.safetensors` and `model.json` are all that the network needs; nothing is unpickled."""

NEEDS_CODE = " Loading it needs the code of `{}`, which is not in this folder; ONNX does not."


def render_card(
    document: Mapping[str, Any], *, claim: PrivacyClaim, price: Price, scores: Mapping[str, float | None], weights: Path
) -> str:
    """The card's text.

    Guarantees: it holds what claim.json and model.json hold, and no metric beside the scores of the claim.

    Args:
        document: what stands in model.json.
        claim, price, scores: as claim.json has them.
        weights: the safetensors file, whose header says how many parameters there are.
    """
    config, meta = document["config"], document["meta"]
    title = f"Pose model {meta['trial_id']}" if meta.get("trial_id") else "Pose model"
    sections = {
        "What it promises": f"**{claim.headline()}**\n\n{claim.paragraph()}",
        "What choosing it cost": price.text,
        "How good it is": _scores(scores, config),
        "Data": _data(claim, config),
        "What public views disclose": _disclosure(claim),
        "The network": _network(config, weights, meta) + _joints(document),
        "How to use it": USE,
    }
    return FRONT + f"\n# {title}\n" + "".join(f"\n## {name}\n\n{text}\n" for name, text in sections.items())


def _scores(scores: Mapping[str, float | None], config: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {100 * value:.2f} % |" for name, value in scores.items() if value is not None]
    if not rows:
        return "No score was released."
    flip = _views_text(config.get("evaluation", {}))
    return "\n".join([f"On `{config['data']['validation']}`{flip}:", "", "| score | value |", "|---|---|", *rows])


def _views_text(evaluation: Mapping[str, Any]) -> str:
    """What a score rests on, where it is more than the crop."""
    rotations, scales = evaluation.get("rotations_deg", (0.0,)), evaluation.get("scales", (1.0,))
    kinds = 1 + (evaluation.get("inputs") == "both")
    views = len(rotations) * len(scales) * (1 + bool(evaluation.get("flip"))) * kinds
    if len(rotations) * len(scales) * kinds == 1:
        return ", with a flip test" if evaluation.get("flip") else ""
    return f", with {views} views of each crop (fuse {evaluation.get('fuse', 'mean')})"


def _data(claim: PrivacyClaim, config: Mapping[str, Any]) -> str:
    data = config["data"]
    named = [("private", data["private"]), ("in its place, for choosing", data.get("proxy")), ("public", data["public"])]
    lines = [f"- {part}: `{name}`" for part, name in named if name]
    if config["model"].get("weights"):
        lines.append(f"- initial weights, public: `{config['model']['weights']}`")
    kind = "The private data are a stand-in: ε is as it would be." if claim.stand_in else "The private data are protected."
    return "\n".join([*lines, "", kind + " No record of them is in this folder."])


def _disclosure(claim: PrivacyClaim) -> str:
    if claim.views is None:
        given = "given_public_view" in claim.relation
        return "What the public views show was not measured." if given else "No public view of private data was used."
    return claim.views.sentence().strip()


def _network(config: Mapping[str, Any], weights: Path, meta: Mapping[str, Any]) -> str:
    model = config["model"]
    shapes = [entry["shape"] for entry in read_header(weights).tensors.values()]
    count = sum(math.prod(shape) for shape in shapes)
    return (
        f"Backbone `{model['backbone']}`, head `{model['head']}`, {count:,} parameters, crops of {model['input_height_px']} × "
        f"{model['input_width_px']} px (height × width). Method `{meta.get('method', config['method'])}`."
        + (NEEDS_CODE.format(model["backbone"]) if backbone_traits(model["backbone"]).is_foreign else "")
    )


def _joints(document: Mapping[str, Any]) -> str:
    """The joints in the order of the keypoints; a document of an earlier version means mpii_16."""
    skeleton = Skeleton.model_validate(document["skeleton"]) if "skeleton" in document else MPII_16
    return f"\n\nJoints ({skeleton.name}): {', '.join(skeleton.joints)}."
