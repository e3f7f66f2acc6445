"""What one trial is, as frozen and checked data. Torch-free, so that a search space loads without it."""

from dpcore.config.data import AugmentationConfig, DataConfig, Places, RecordAugmentation, SplitConfig
from dpcore.config.evaluation import EvaluationConfig
from dpcore.config.losses import LOSSES, PckMassConfig, TrainingLoss
from dpcore.config.methods import METHODS, Method
from dpcore.config.model import ModelConfig
from dpcore.config.parsing import Part, did_you_mean, digest_of, field_names, parse_config
from dpcore.config.privacy import (
    AttackSettings,
    PrivacyUnit,
    Relation,
    SubspaceConfig,
)
from dpcore.config.runtime import Precision, RuntimeFlags
from dpcore.config.training import OptimizerConfig, PrivateStage, PublicStage, PublicViewStage, Stages, TeacherStage
from dpcore.config.trial import MECHANISM_VERSION, TrialConfig

__all__ = [
    "LOSSES",
    "MECHANISM_VERSION",
    "METHODS",
    "AttackSettings",
    "AugmentationConfig",
    "DataConfig",
    "EvaluationConfig",
    "Method",
    "ModelConfig",
    "OptimizerConfig",
    "Part",
    "PckMassConfig",
    "Places",
    "Precision",
    "PrivacyUnit",
    "PrivateStage",
    "PublicStage",
    "PublicViewStage",
    "RecordAugmentation",
    "Relation",
    "RuntimeFlags",
    "SplitConfig",
    "Stages",
    "SubspaceConfig",
    "TeacherStage",
    "TrainingLoss",
    "TrialConfig",
    "did_you_mean",
    "digest_of",
    "field_names",
    "parse_config",
]
