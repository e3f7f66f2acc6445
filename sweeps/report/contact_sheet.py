"""Draws contact sheets: a winner's predictions and the labels, on sixteen crops.

Pictures of private data are never shown. Pictures of real people appear only inside MLflow.

| validation data | crops on the sheet | where the sheet may lie |
|---|---|---|
| synthetic | these data | report folder and MLflow |
| PUBLIC photographs, model input of the embedded size | `synthetic/validation` | report folder and MLflow |
| PUBLIC photographs, another input size | these data | MLflow only |
| anything else | none: refused with the reason | – |

The crops are evenly spaced over the dataset. They are not chosen by their score.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dpcore.config import Places, TrialConfig
from dpcore.errors import DpsweepError, Refused
from dpcore.pose.skeleton import Skeleton
from sweeps.records.publication import trial_at_hand
from sweeps.records.results import title_of
from sweeps.records.trial_id import epsilon_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dpcore.data.shards import ShardSet
    from sweeps.records.results import SweepResults, TrialRecord
    from sweeps.records.spec import SweepSpec

STAND_IN = "synthetic/validation"
CROPS = 16
COLUMNS = 4
LABEL_COLOUR, PREDICTION_COLOUR = "#ffffff", "#ee3377"
HIT_WITHIN_HEADS = 0.5


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """The sheet of one ε, or why there is none.

    Attributes:
        epsilon: whose winner it shows.
        path: the PNG, or None without a sheet.
        mlflow_only: it shows photographs of people. Remove the file once MLflow has it.
        reason: why there is no sheet, or which crops replace which.
    """

    epsilon: float
    path: Path | None
    mlflow_only: bool = False
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class SheetSource:
    """The crops that may be drawn.

    Attributes:
        name: the dataset's name in a config.
        shows_people: whether these are photographs of people, so that only MLflow may have the sheet.
    """

    name: str
    dataset: ShardSet
    shows_people: bool


@dataclass(frozen=True, kw_only=True)
class SeenCrops:
    """What the winner of an ε predicts on some crops.

    Attributes:
        source: where the crops come from.
        dataset: the same, with the joints of the model.
        rows: (N,) row numbers.
        predictions: (N, K, 2) px.
        title: whose predictions these are, and on what.
    """

    source: SheetSource
    dataset: ShardSet
    rows: NDArray[np.int64]
    predictions: NDArray[np.float32]
    title: str


def see_crops(winner: TrialRecord, epsilon: float, spec: SweepSpec, source: SheetSource | None = None) -> SeenCrops:
    """Predicts the joints on crops that may be drawn, with the winner's saved model. `source`: crops that somebody asked for.

    Raises:
        Refused: the validation data may not be shown. BadInput: there is no model. Corrupt: its weights are not those that were written.
    """
    from dpcore.train.upright import as_read

    found = choose_source(winner.config, spec.places) if source is None else source
    rows, shown = _spread(len(found.dataset)), as_read(found.dataset, winner.config, spec.places)
    were_scored = found.name == winner.config.data.validation
    model = trial_at_hand(spec, winner.trial_id)
    predictions, skeleton = predict_crops(model, shown, rows, features_in=spec.places if were_scored else None)
    dataset = shown.as_skeleton(skeleton)
    return SeenCrops(source=found, dataset=dataset, rows=rows, predictions=predictions, title=_title(winner, epsilon, found.name))


def private_source(config: TrialConfig, places: Places) -> SheetSource:
    """The private pictures of a trial. They may be drawn only where somebody asked for them by name (`--show-private`), into a file for
    the owner of the data alone."""
    from dpcore.data.catalog import open_dataset

    name = config.data.private
    return SheetSource(name=name, dataset=open_dataset(name, places), shows_people=True)


def choose_source(config: TrialConfig, places: Places) -> SheetSource:
    """Chooses the crops to draw for a trial, by the table above.

    Raises:
        Refused: the validation data are neither PUBLIC nor synthetic.
    """
    from dpcore.data.catalog import open_dataset
    from dpcore.data.synthetic import SIZE_PX

    name = config.data.validation
    dataset = open_dataset(name, places)
    if dataset.manifest.protected:
        raise Refused(f"{name} is protected: its pictures are not shown")
    if dataset.manifest.is_synthetic:
        return SheetSource(name=name, dataset=dataset, shows_people=False)
    if dataset.manifest.role != "PUBLIC":
        raise Refused(f"{name} is {dataset.manifest.role} and not synthetic: its pictures are not shown")
    if (config.model.input_height_px, config.model.input_width_px) == (SIZE_PX, SIZE_PX):
        return SheetSource(name=STAND_IN, dataset=open_dataset(STAND_IN, places), shows_people=False)
    return SheetSource(name=name, dataset=dataset, shows_people=True)


def save_contact_sheets(results: SweepResults, spec: SweepSpec, *, shown: Path, sealed: Path) -> tuple[ContactSheet, ...]:
    """Draws one sheet per ε that has a winner, from the winner's saved model.

    A sheet that cannot be drawn gives its reason. It never stops a sweep, because it is only an extra at the end.

    Args:
        results: The results with the winners.
        spec: The sweep, which knows where the models are.
        shown: Folder for sheets that anyone may see.
        sealed: Folder, made with mode 0700, for sheets that wait for MLflow.
    """
    winners = [(epsilon, winner) for epsilon in results.epsilons if (winner := results.best(epsilon)) is not None]
    sheets = []
    for epsilon, winner in winners:
        try:
            sheets.append(_save_one(winner, epsilon, spec, shown, sealed))
        except DpsweepError as error:
            sheets.append(ContactSheet(epsilon=epsilon, path=None, reason=f"no contact sheet: {error}"))
    return tuple(sheets)


def _save_one(winner: TrialRecord, epsilon: float, spec: SweepSpec, shown: Path, sealed: Path) -> ContactSheet:
    seen = see_crops(winner, epsilon, spec)
    source = seen.source
    figure = draw_sheet(seen.dataset, seen.rows, seen.predictions, title=seen.title)
    folder = sealed if source.shows_people else shown
    folder.mkdir(parents=True, exist_ok=True, mode=0o700 if source.shows_people else 0o777)
    path = folder / f"contact_sheet_eps_{epsilon_name(epsilon)}.png"
    figure.savefig(path, dpi=100, metadata={"Software": None})
    validation = winner.config.data.validation
    reason = None if source.name == validation else f"crops of {source.name} instead of photographs from {validation}"
    return ContactSheet(epsilon=epsilon, path=path, mlflow_only=source.shows_people, reason=reason)


def _spread(count: int) -> NDArray[np.int64]:
    """Row numbers, evenly spaced over a dataset. All rows if the dataset has fewer than a sheet shows."""
    rows: NDArray[np.int64] = np.unique(np.linspace(0, count - 1, min(CROPS, count)).astype(np.int64))
    return rows


def _title(winner: TrialRecord, epsilon: float, crops: str) -> str:
    score = "–" if winner.score is None else f"{100 * winner.score:.1f} %"
    return (
        f"{winner.trial_id} ({winner.config.method}), best at ε = {epsilon:g}: {title_of(winner.metric)} {score} "
        f"on {winner.config.data.validation}\n"
        f"crops evenly spaced over {crops}; joints of a crop within half a head size"
    )


def predict_crops(
    model: Path, dataset: ShardSet, rows: NDArray[np.int64], *, features_in: Places | None = None
) -> tuple[NDArray[np.float32], Skeleton]:
    """Predicts keypoints (N, K, 2) px on some crops with a saved model, and says which joints they are.

    Args:
        model: its folder.
        dataset: the crops.
        rows: which of them.
        features_in: where the cache has what the network's frozen layers make of this dataset, as of people whom a sweep was scored on: a
            large network that is asked in 24 views takes 15 seconds for a sheet. None: the crops go through the whole network.

    Raises:
        BadInput: there is no model. Corrupt: the weights differ from those that were written.
    """
    import torch

    from dpcore.data.transforms import to_tensor
    from dpcore.inference.reading import PoseReading
    from dpcore.train.inputs import InputBuilder, shown_in
    from dpcore.train.saved import load_model

    saved = load_model(model)
    reading = PoseReading.of(saved.config.model, saved.config.evaluation, saved.skeleton)
    with torch.no_grad():
        if features_in is None:
            crops = [(view, shown_in(view, dataset, reading)) for view in reading.views]
            outputs = [saved.network(view.of_images(to_tensor(of_view.images(rows)))) for view, of_view in crops]
        else:
            split = saved.network.split(saved.config.model.freeze)
            builder = InputBuilder.for_split(split, model=saved.config.model, places=features_in, device=torch.device("cpu"))
            outputs = [split.tail(inputs.take(rows, None)) for inputs in builder.scored(dataset, reading)]
        keypoints: NDArray[np.float32] = reading.points(outputs)[0].numpy()
    return keypoints, saved.skeleton


def draw_sheet(dataset: ShardSet, rows: NDArray[np.int64], predictions: NDArray[np.float32], *, title: str) -> Figure:
    """Draws crops with their labels (white), predicted skeletons, and the number of joints that are hits.

    Args:
        dataset: Source of the crops and labels.
        rows: (N,) row numbers.
        predictions: (N, K, 2) px.
        title: Title of the sheet.
    """
    from matplotlib.figure import Figure

    lines = -(-len(rows) // COLUMNS)
    figure = Figure(figsize=(2.1 * COLUMNS, 2.3 * lines + 0.9), layout="constrained")
    grid: Any = figure.subplots(lines, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    images = dataset.images(rows)
    for axes, image, row, predicted in zip(grid.flat, images, rows, predictions, strict=False):
        _draw_crop(axes, image)
        skeleton = dataset.skeleton
        _draw_skeleton(axes, skeleton, dataset.keypoints[row], dataset.visible[row], colour=LABEL_COLOUR, edge="#222222")
        finite = np.isfinite(predicted).all(axis=-1)
        _draw_skeleton(axes, skeleton, predicted, finite, colour=PREDICTION_COLOUR, edge=PREDICTION_COLOUR)
        axes.set_title(hits(dataset, int(row), predicted), fontsize="x-small", pad=2)
    figure.suptitle(title, fontsize="small", x=0.01, ha="left")
    handles = [_line_in(LABEL_COLOUR, "label"), _line_in(PREDICTION_COLOUR, "prediction")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize="small", facecolor="#999999")
    return figure


def _draw_crop(axes: Axes, image: NDArray[np.uint8]) -> None:
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="bilinear")
    # A prediction outside the image must not shrink the crop.
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)


def _draw_skeleton(
    axes: Axes, skeleton: Skeleton, keypoints: NDArray[np.floating], drawn: NDArray[np.bool_], *, colour: str, edge: str
) -> None:
    for start, end in skeleton.line_places:
        if drawn[start] and drawn[end]:
            x, y = zip(keypoints[start], keypoints[end], strict=True)
            axes.plot(x, y, color=colour, lw=1.5, solid_capstyle="round")
    axes.scatter(keypoints[drawn, 0], keypoints[drawn, 1], s=9, color=colour, edgecolors=edge, linewidths=0.5, zorder=3)


def hits(dataset: ShardSet, row: int, predicted: NDArray[np.float32]) -> str:
    """How many scored joints lie within half a head size, as PCKh@0.5 counts them: `11 of 14`."""
    head = float(dataset.head_size_px[row])
    scored = dataset.visible[row].copy()
    scored &= dataset.skeleton.scored
    if not np.isfinite(head) or head <= 0 or not scored.any():
        return "not scored"
    distance = np.linalg.norm(predicted[scored] - dataset.keypoints[row][scored], axis=-1)
    return f"{int((distance <= HIT_WITHIN_HEADS * head).sum())} of {int(scored.sum())}"


def _line_in(colour: str, label: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, lw=2, label=label)
