"""Space files that come with dpsweep: `quick`, `hybrid`, one per method, and one per benchmark (`lspet`, `mpii`, `paper_grid`, ...)."""

from pathlib import Path

from dpcore.errors import BadInput
from dpcore.words import did_you_mean


def preset_names() -> tuple[str, ...]:
    """The names that `load_space` takes in a path's place."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


def preset_path(name: str) -> Path:
    """The file of a preset.

    Raises:
        BadInput: there is none of that name.
    """
    path = Path(__file__).parent / f"{name}.yaml"
    if name not in preset_names():
        raise BadInput(f"no preset and no file is called {name}{did_you_mean(name, list(preset_names()))}")
    return path
