"""Rules that no single module can hold: nothing is unpickled, nothing draws from global state, no error is swallowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("dpcore", "dpsweep", "search_spaces", "sweeps")
GLOBAL_SEEDS = {
    "torch.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "np.random.seed",
    "numpy.random.seed",
    "random.seed",
}
UNPICKLING = {"pickle.load", "pickle.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads"}


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """Place, dotted name and node of every call in the packages."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), node


def keyword(node: ast.Call, name: str) -> object:
    found = [k.value for k in node.keywords if k.arg == name]
    return ast.literal_eval(found[0]) if found else None


def test_nothing_is_unpickled() -> None:
    """Weights and archives come from elsewhere: a pickle in them would run code."""
    wrong = [
        place
        for place, name, node in calls()
        if name in UNPICKLING
        or (name == "torch.load" and keyword(node, "weights_only") is not True)
        or (name in ("np.load", "numpy.load") and keyword(node, "allow_pickle") is not False and keyword(node, "mmap_mode") is None)
    ]
    assert wrong == []


def test_no_global_generator_is_seeded() -> None:
    assert [place for place, name, _ in calls() if name in GLOBAL_SEEDS] == []


def test_weights_are_loaded_whole() -> None:
    """`strict=False` drops names that do not match, in silence."""
    assert [place for place, name, node in calls() if name.endswith("load_state_dict") and keyword(node, "strict") is False] == []
