"""Predicted people, and the two files that hold them: COCO's results and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpcore.durable import write_new_file
from dpcore.errors import BadInput, Refused
from sweeps.models.keypoints.boxes import PersonBox

PERSON_CATEGORY = 1
DIGITS = 3
"""Of a px or a score in a file: a thousandth of a pixel is below every label's precision."""
FORMATS = {".json": "to_json", ".csv": "to_csv"}


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedPerson:
    """One person on one picture.

    Attributes:
        image: the picture as it was named.
        box: where the person was said to stand; None: the whole picture was the crop.
        keypoints: (K, 2) float64 px of the picture.
        scores: (K,) in 0 … 1.
    """

    image: str
    box: PersonBox | None
    keypoints: NDArray[np.float64]
    scores: NDArray[np.float64]

    @property
    def score(self) -> float:
        """The mean over the joints, times the detector's score where the box has one."""
        detected = 1.0 if self.box is None or self.box.score is None else self.box.score
        return float(self.scores.mean()) * detected

    def document(self) -> dict[str, Any]:
        """As an entry of COCO's results: keypoints as x, y, score of one joint after the other."""
        rows = np.column_stack([self.keypoints, self.scores])
        found: dict[str, Any] = {"image": self.image, "category_id": PERSON_CATEGORY}
        if self.box is not None:
            if self.box.image_id is not None:
                found["image_id"] = self.box.image_id
            found["bbox"] = list(self.box.values)
        return found | {"keypoints": [round(float(value), DIGITS) for value in rows.ravel()], "score": round(self.score, 6)}


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictedPeople:
    """What a model found on pictures.

    Attributes:
        joints: K names, in the order of the keypoints.
        people: in the order of the pictures, on a picture in that of its boxes.
        pictures: how many were read.
        left_out: what was not used, by reason.
        warning: what is to be said of the model: that its claim was cut off or altered; None where it has its claim.
        drawn: folder of the drawn pictures; None without one.
    """

    joints: tuple[str, ...]
    people: tuple[PredictedPerson, ...]
    pictures: int
    left_out: Mapping[str, int]
    warning: str | None = None
    drawn: Path | None = None

    def document(self) -> list[dict[str, Any]]:
        """COCO's results: one entry a person."""
        return [person.document() for person in self.people]

    def to_json(self) -> str:
        """`document` as text, one line a person."""
        return "[" + ",\n ".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in self.document()) + "]\n"

    def to_csv(self) -> str:
        """One row a person: image, score, box, and x, y and score of each joint by name."""
        names = [f"{joint}_{what}" for joint in self.joints for what in ("x", "y", "score")]
        stream = io.StringIO()
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["image", "score", "box_x", "box_y", "box_w", "box_h", *names])
        for person in self.people:
            entry = person.document()
            rows.writerow([person.image, entry["score"], *entry.get("bbox", ("",) * 4), *entry["keypoints"]])
        return stream.getvalue()

    def write(self, path: str | Path) -> None:
        """Writes a new file: COCO's results (`.json`) or a table (`.csv`), whole or not at all.

        Raises:
            BadInput: another suffix, or no folder there. Refused: the file exists.
        """
        check_out(Path(path))
        text: str = getattr(self, FORMATS[Path(path).suffix.lower()])()
        write_new_file(Path(path), text.encode())


def check_out(path: Path) -> None:
    """Refuses a place that `PredictedPeople.write` would refuse, before any work.

    Raises:
        BadInput: another suffix than .json and .csv, or no folder there. Refused: the file exists.
    """
    if path.suffix.lower() not in FORMATS:
        raise BadInput(f"--out {path}: expected a name that ends with {' or '.join(FORMATS)}")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"--out {path}: there is no folder {path.absolute().parent}")
    if path.exists():
        raise Refused(f"--out {path}: exists already and is not overwritten; give another file")
