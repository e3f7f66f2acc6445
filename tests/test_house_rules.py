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


def test_text_files_name_their_encoding() -> None:
    """Where the locale is not UTF-8, an ε or a name would be written as something else, or not at all."""
    wrong = [
        place
        for place, name, node in calls()
        if name.endswith((".read_text", ".write_text")) and "encoding" not in [k.arg for k in node.keywords]
    ]
    assert wrong == []


TYPE_FORMS = ("Literal[", "Callable[", "Mapping[", "Sequence[", "dict[", "list[", "tuple[", "Annotated[")


def is_type(value: ast.expr) -> bool:
    """Whether what is assigned is a type: a parametrised form or a union."""
    return (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)) or ast.unparse(value).startswith(TYPE_FORMS)


def types_in(tree: ast.Module) -> Iterator[str]:
    """The public classes and type aliases of a module."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and is_type(node.value):
            yield node.targets[0].id
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "TypeAlias" in ast.unparse(node.annotation):
            yield node.target.id


def test_one_noun_has_one_owner() -> None:
    """A name that means two things is read wrongly, and two definitions of one thing drift apart."""
    owners: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for name in types_in(ast.parse(path.read_text())):
                owners.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in owners.items() if len(places) > 1 and not name.startswith("_")} == {}


def test_a_second_owner_is_found() -> None:
    source = "class Role: ...\nRelation = Literal['a']\nPair = int | str\nCOUNT = 3\nname = dict(a=1)"
    assert list(types_in(ast.parse(source))) == ["Role", "Relation", "Pair"]


WRITING_OUTSIDE = {
    "dpcore/durable.py": "the owner",
    "sweeps/ledger/witness.py": "appended by several processes at once",
    "sweeps/ledger/restoring.py": "writes the witness anew",
}


def test_one_module_puts_files_on_disk() -> None:
    """fsync and rename stand in dpcore/durable.py, so that all files survive a power cut alike."""
    found = {place.partition(":")[0] for place, name, _ in calls() if name in ("os.fsync", "os.replace", "os.rename")}
    assert found <= set(WRITING_OUTSIDE)


def test_a_room_has_at_most_twelve_modules_and_there_are_at_most_fifteen_rooms() -> None:
    """As many as a reader keeps in mind. A room that grows past it holds two things."""
    rooms = {path.parent for path in (ROOT / "sweeps").glob("*/__init__.py")}
    modules = {room.name: len([path for path in room.glob("*.py") if path.name != "__init__.py"]) for room in rooms}
    assert len(rooms) <= 15
    assert not {room: count for room, count in modules.items() if count > 12}
