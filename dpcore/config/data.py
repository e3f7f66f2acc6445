"""What a trial reads: datasets, augmentation, and the split into a public and a sensitive part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from dpcore.config.parsing import Part


class DataConfig(Part):
    """Which datasets a trial reads. A name is a folder below the data directory, `synthetic/...` is built in."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"canonical_rotation", "rotation_rule"})

    private: str = Field(description="the PRIVATE dataset: the people who are protected")
    public: str = Field(description="a PUBLIC dataset: pretraining and the subspace")
    validation: str = Field(description="the dataset that is scored on; PUBLIC unless sweep.validation is private")
    nominal_examples: int = Field(
        ge=1, description="public N, in privacy units: with the expected batch it fixes q; never the realised count"
    )
    proxy: str | None = Field(
        default=None, description="a PUBLIC dataset in the private part's place: a rehearsal, nothing private is read"
    )
    proxy_examples: int | None = Field(default=None, ge=1, description="how many privacy units the proxy has")
    canonical_rotation: str | None = Field(
        default=None,
        description="a folded MoveNet below the data directory, without _fp16.npz: a PUBLIC detector, by which each square crop is turned "
        "upright. Where the trial has a split, it reads private records' public views alone",
    )
    rotation_rule: Literal["confidence", "axis"] = Field(
        default="confidence", description="of canonical_rotation: the quarter of which the detector is surest, or hips below shoulders"
    )

    @model_validator(mode="after")
    def _proxy_with_its_size(self) -> Self:
        if (self.proxy is None) != (self.proxy_examples is None):
            raise ValueError("data.proxy and data.proxy_examples belong together: give both or neither")
        return self

    @model_validator(mode="after")
    def _rule_of_a_detector(self) -> Self:
        if self.canonical_rotation is None and self.rotation_rule != "confidence":
            raise ValueError(
                f"data.rotation_rule {self.rotation_rule} belongs to data.canonical_rotation: name a detector, or leave it out"
            )
        return self

    @property
    def in_private_place(self) -> str:
        """The dataset that private steps draw from: the proxy where there is one."""
        return self.private if self.proxy is None else self.proxy


class AugmentationConfig(Part):
    """Random geometry and light of the training images. A pair of an example and its public view shares one draw."""

    flip_prob: float = Field(default=0.0, ge=0, le=1, description="probability of the mirror image, its left and right joints swapped")
    scale_frac: float = Field(default=0.0, ge=0, lt=1, description="size of the person times 1 ± this")
    rotate_deg: float = Field(default=0.0, ge=0, le=180, description="the largest rotation, either way")
    rotate_prob: float = Field(default=0.0, ge=0, le=1, description="probability of a rotation")
    photometric_frac: float = Field(default=0.0, ge=0, le=1, description="contrast and gains in 1 ± this, clutter up to half of it")

    @property
    def is_identity(self) -> bool:
        """Whether every draw leaves the image as it is, so that features of frozen layers can be cached."""
        turns = self.rotate_deg > 0 and self.rotate_prob > 0
        return not (turns or self.flip_prob or self.scale_frac or self.photometric_frac)


class RecordAugmentation(AugmentationConfig):
    """That of the private steps and of the public views beside them. A public stage clips nothing, so it needs no copies."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"multiplicity"})

    multiplicity: int = Field(
        default=1, ge=1, description="K: augmented copies of a record in a private step; its row is their mean, clipped once"
    )

    @model_validator(mode="after")
    def _copies_differ(self) -> Self:
        if self.multiplicity > 1 and self.is_identity:
            raise ValueError(f"augmentation.multiplicity {self.multiplicity} of like copies: give flips, scale, rotation or light")
        return self


class SplitConfig(Part):
    """The sensitive-feature split: what of an image is public. A wider public part is a weaker promise."""

    name: str = Field(min_length=1, description="as trials and reports call it; in a space file the key that it stands under")
    transform: Literal["gaussian_blur", "downsample", "pixelate"] = Field(description="what makes the public view of a picture")
    sigma_px: float | None = Field(default=None, gt=0, description="gaussian_blur: standard deviation of the blur, in px of the crop")
    factor: int | None = Field(default=None, ge=2, description="downsample: px of the crop, across and down, per px of the view")
    cell_px: int | None = Field(default=None, ge=2, description="pixelate: side of a cell, in px of the crop")
    region: Literal["all", "head", "person", "background"] = Field(
        default="all", description="where the transform hides; the rest of the picture is public as it is"
    )
    sharpen: Literal["none", "wiener"] = Field(default="none", description="post-processing of the stored bytes: free")

    @model_validator(mode="after")
    def _strength_of_its_transform(self) -> Self:
        wanted = {"gaussian_blur": "sigma_px", "downsample": "factor", "pixelate": "cell_px"}[self.transform]
        given = [k for k in ("sigma_px", "factor", "cell_px") if getattr(self, k) is not None]
        if given != [wanted]:
            raise ValueError(f"split {self.name}: transform {self.transform} takes {wanted} alone, given {given or 'none'}")
        if self.sharpen == "wiener" and (self.transform != "gaussian_blur" or self.region != "all"):
            raise ValueError(f"split {self.name}: sharpen wiener needs transform gaussian_blur on region all")
        return self


class Places(Part):
    """Where a process finds datasets (`data_dir`) and keeps what can be rebuilt (`cache_dir`)."""

    data_dir: Path
    cache_dir: Path

    @classmethod
    def of(cls, data_dir: str | Path | None = None, cache_dir: str | Path | None = None) -> Self:
        """The two folders as absolute paths, which a worker with another working directory finds too.

        | not given | is |
        |---|---|
        | `data_dir` | the variable DPSWEEP_DATA_DIR, else `data` in the working directory |
        | `cache_dir` | the variable DPSWEEP_CACHE_DIR, else `cache` in `data_dir` |
        """
        data = Path(os.environ.get("DPSWEEP_DATA_DIR", "data") if data_dir is None else data_dir)
        cache = os.environ.get("DPSWEEP_CACHE_DIR", data / "cache") if cache_dir is None else cache_dir
        return cls(data_dir=data.absolute(), cache_dir=Path(cache).absolute())
