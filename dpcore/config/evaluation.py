"""How a model is asked for keypoints: the same for floor, control, ceiling and private runs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dpcore.config.data import SplitConfig
from dpcore.config.parsing import Part

MOST_SCALE = 4.0


def _listed(given: Any) -> Any:
    return [part.strip() for part in given.split(",")] if isinstance(given, str) else given


def _each_turn_once(rotations_deg: tuple[float, ...]) -> tuple[float, ...]:
    if len({angle % 360 for angle in rotations_deg}) < len(rotations_deg):
        raise ValueError(f"give each angle once (they count modulo 360), given {list(rotations_deg)}")
    return rotations_deg


Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]
"""Numbers, also given as text: "0, 90"."""
Rotations = Annotated[Numbers, AfterValidator(_each_turn_once)]
"""Different turns in degrees, counterclockwise."""


class EvaluationConfig(Part):
    """How predictions are made from a trained model. It changes scores and never weights.

    A prediction may rest on several views of a crop: each rotation with each scale, and with `flip` the mirror image of each. The
    network reads every view, its probability maps are turned back to the upright crop, and `fuse` makes one map of them.

    It belongs to the trial, because a score is compared with other scores: of its floor, its control and its ceiling. A space fixes
    it in `trial`, and all runs of a sweep share it. Where a search moves it, each choice has floors and a ceiling of its own, and a report
    compares runs of one evaluation alone. A saved model keeps it.

    Lists may be given as text, as a choice of a search is: `rotations_deg: "0,90,180,270"`."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"rotations_deg", "scales", "fuse", "confidence_power", "temperature", "inputs", "view"})

    flip: bool = Field(default=False, description="each view also as its mirror image")
    rotations_deg: Rotations = Field(
        default=(0.0,), min_length=1, description="the crop turned counterclockwise by each; multiples of 90 are exact on square crops"
    )
    scales: Numbers = Field(default=(1.0,), min_length=1, description="size of the person in the network's input, as a factor")
    fuse: Literal["mean", "maps", "best"] = Field(
        default="mean", description="mean of the maps; maps: each view weighted by its confidence; best: the most confident view"
    )
    confidence_power: float = Field(
        default=8.0, gt=0, description="fuse maps: a view's weight is its mean confidence to this power, between mean (0) and best (∞)"
    )
    temperature: float = Field(default=1.0, gt=0, description="of the softmax that makes a view's maps probabilities")
    inputs: Literal["sharp", "view", "both"] = Field(
        default="sharp",
        description="the picture, its public view as `view` makes it, or each view of both",
    )
    view: SplitConfig | None = Field(default=None, description="what makes the public view of a picture; for inputs view and both")

    @model_validator(mode="after")
    def _scales_differ(self) -> Self:
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales {list(self.scales)}: give each scale once")
        wrong = [scale for scale in self.scales if not 1 / MOST_SCALE <= scale <= MOST_SCALE]
        if wrong:
            raise ValueError(f"scales: expected numbers from {1 / MOST_SCALE:g} to {MOST_SCALE:g}, given {wrong[0]:g}")
        return self

    @model_validator(mode="after")
    def _view_where_it_is_read(self) -> Self:
        if (self.view is None) != (self.inputs == "sharp"):
            wanted = "leave view out" if self.view is not None else "give view: a split, whole, as in trial.split"
            raise ValueError(f"inputs {self.inputs}: {wanted}")
        if self.view is not None and self.view.region != "all":
            raise ValueError(f"view {self.view.name}: give a split of region all; region {self.view.region} is found by labels")
        return self

    @property
    def views(self) -> int:
        """How many views a prediction rests on, and how often the network runs for it."""
        return len(self.rotations_deg) * len(self.scales) * (1 + self.flip) * (1 + (self.inputs == "both"))
