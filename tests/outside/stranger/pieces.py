"""What the package brings, by name and traits. Nothing here imports torch, so that spaces load without it."""

from dpcore.config.methods import Method
from dpcore.config.networks import Backbone, Head
from dpcore.data.formats import Importer
from dpcore.pose.metrics import Metric
from search_spaces.regimes import Regime
from search_spaces.samplers import Sampler

SIGNED = Method(name="signed", direction="stranger.work:signed", label="signed DP-SGD", colour="#66ccee", marker="P")
PUBLIC_MIX = Method(name="public_mix", uses_views=True, label="DP-SGD beside a public gradient")
STRIDES = Backbone(name="strides", builder="stranger.work:build_strides")
MEAN = Head(name="mean", builder="stranger.work:MeanHead")
NOTED = Sampler(name="noted", draws="independent", builder="stranger.work:noted")
TWICE = Regime(
    name="twice", pricing="stranger.work:Twice", refusals=lambda space: ["sweep.seed: unlucky"] if space.name == "unlucky" else []
)
ERROR_PX = Metric(name="error_px", score="stranger.work:error_px")
KEYPOINT_LIST = Importer(
    name="keypoint_list",
    help="a JSON list of {file, keypoints}",
    builder="stranger.work:import_list",
    add_options=lambda parser: parser.add_argument("--head-px", type=float, required=True, help="head size of everybody"),
    options=("head_px",),
)

ENTRY_POINTS = """\
[dpsweep.methods]
signed = stranger.pieces:SIGNED
public_mix = stranger.pieces:PUBLIC_MIX
[dpsweep.backbones]
strides = stranger.pieces:STRIDES
[dpsweep.heads]
mean = stranger.pieces:MEAN
[dpsweep.samplers]
noted = stranger.pieces:NOTED
[dpsweep.regimes]
twice = stranger.pieces:TWICE
[dpsweep.importers]
keypoint_list = stranger.pieces:KEYPOINT_LIST
[dpsweep.metrics]
error_px = stranger.pieces:ERROR_PX
"""
