"""Imports a file in a test as the command line would."""

from pathlib import Path
from typing import Any

from dpcore.config.registry import loaded
from dpcore.data.formats import IMPORTERS
from dpcore.data.manifest import Manifest
from dpcore.importers.importing import ImportOptions, import_people
from dpcore.importers.label_checks import ImportTally
from dpcore.importers.people import LabelSource
from dpcore.pose.skeleton import SKELETONS

FIELDS: dict[str, Any] = {"name": "foreign", "role": "PUBLIC", "protected": False, "height_px": 192, "width_px": 192}


def import_file(form: str, annotations: Path, images: Path, out: Path, **given: Any) -> Manifest:
    """Imports with `FIELDS`, or what is given in their place; the format's own options are keywords too."""
    importer = IMPORTERS.get(form)
    read = loaded(importer.reader, what=form)
    own = {name: given.pop(name) for name in importer.options if name in given}
    if "one_based" in importer.options:
        own.setdefault("one_based", False)
    skeleton, order = (None if (name := given.pop(key, None)) is None else SKELETONS.get(name) for key in ("skeleton", "order"))
    tally, skip = given.pop("tally", None) or ImportTally(), given.pop("skip_broken", False)
    options = ImportOptions(
        box_scale=given.pop("box_scale", 1.25), skeleton=skeleton, processes=given.pop("processes", 1), **_progress(given)
    )
    source = LabelSource(annotations=annotations, images=images, order=order, skip_broken=skip, tally=tally)
    return import_people(lambda source: read(source, **own), source, out, fields={**FIELDS, **given}, options=options)


def _progress(given: dict[str, Any]) -> dict[str, Any]:
    return {"progress": given.pop("progress")} if "progress" in given else {}
