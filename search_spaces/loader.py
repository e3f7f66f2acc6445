"""Reads a space file: YAML 1.2 in, a checked `SpaceFile` out, one error line per mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError

from dpcore.config import SplitConfig, TrialConfig, did_you_mean, field_names, parse_config
from dpcore.errors import BadInput
from search_spaces.admission import admission_mistakes
from search_spaces.constraints import Constraint
from search_spaces.presets import preset_names, preset_path
from search_spaces.searchable import why_not_searchable
from search_spaces.space import (
    HORIZON_PATH,
    PARAMETER_KINDS,
    SPENDING_PATHS,
    Choice,
    Parameter,
    References,
    SpaceFile,
    SweepSettings,
    set_value,
    value_at,
)

SECTIONS = ("sweep", "references", "splits", "trial", "search", "search_at", "constraints")
SET_BY_THE_SWEEP = ("epsilon", "delta")


def load_space(
    name_or_path: str | Path,
    *,
    assignments: Sequence[str] | Mapping[str, Any] = (),
    epsilons: Sequence[float] | None = None,
    trials: int | None = None,
) -> SpaceFile:
    """A preset by name, or the file at a path.

    Args:
        name_or_path: a preset's name, else a path.
        assignments: `path=value` texts, or a mapping from path to value; `sweep.` and `references.` keys and `constraints` are set,
            a TrialConfig path is fixed and no longer searched (its `when` stays).
        epsilons: replaces `sweep.epsilons`; what `search_at` says of other ε is then dropped.
        trials: replaces `sweep.trials_per_epsilon`.

    Raises:
        BadInput: one line per mistake, each with its path and what was expected.
    """
    path = _find(name_or_path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{path}: not UTF-8 text; save it as UTF-8") from None
    document = _read_yaml(text, str(path))
    if not isinstance(document, dict):
        raise BadInput(f"{path}: expected a mapping with the keys {', '.join(SECTIONS)}")
    given = dict(assignments) if isinstance(assignments, Mapping) else dict(_parse_assignment(text) for text in assignments)
    narrowed = epsilons is not None or "sweep.epsilons" in given
    if epsilons is not None:
        given["sweep.epsilons"] = list(epsilons)
    if trials is not None:
        given["sweep.trials_per_epsilon"] = trials
    _assign(document, given)
    return build_space(document, name=path.stem, narrowed=narrowed)


def build_space(document: dict[str, Any], *, name: str, narrowed: bool = False) -> SpaceFile:
    """The `SpaceFile` of a parsed document (sections as in the file).

    Raises:
        BadInput: one line per mistake.
    """
    mistakes = Mistakes()
    for key in document:
        if key not in SECTIONS:
            mistakes.add(f"{key}: unknown key{did_you_mean(str(key), list(SECTIONS))}")
    sections = {section: mistakes.section(document, section) for section in SECTIONS if section != "constraints"}
    sweep = mistakes.attempt(SweepSettings, sections["sweep"], "sweep")
    references = mistakes.attempt(References, sections["references"], "references")
    splits = {
        str(key): mistakes.attempt(SplitConfig, {"name": str(key), **value} if isinstance(value, dict) else value, f"splits.{key}")
        for key, value in sections["splits"].items()
    }
    search = _parameters(sections["search"], "search", mistakes)
    search_at = _search_at(sections["search_at"], search, epsilons=None if narrowed or sweep is None else sweep.epsilons, mistakes=mistakes)
    _check_trial_keys(sections["trial"], mistakes)
    constraints = _constraints(document.get("constraints"), sections["splits"], mistakes)
    mistakes.stop()
    space = SpaceFile.model_construct(
        name=name,
        sweep=sweep,
        references=references,
        splits=splits,
        trial=sections["trial"],
        search=search,
        search_at=search_at,
        constraints=constraints,
    )
    for mistake in _space_mistakes(space):
        mistakes.add(mistake)
    mistakes.stop()
    for mistake in admission_mistakes(space):
        mistakes.add(mistake)
    mistakes.stop()
    return parse_config(SpaceFile, space.document())


class Mistakes:
    """Collects one line per mistake, so that a person can mend all of them at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, lines: str) -> None:
        """Takes the lines that are not there yet."""
        self._lines.extend(line for line in lines.splitlines() if line not in self._lines)

    def attempt(self, kind: type[Any], values: Any, where: str) -> Any:
        """`values` as a `kind`, or None with the mistakes taken."""
        try:
            return parse_config(kind, values, where=where)
        except BadInput as error:
            self.add(str(error))
            return None

    def section(self, document: dict[str, Any], name: str) -> dict[Any, Any]:
        """A section of the file; absent reads as empty."""
        section = document.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            self.add(f"{name}: expected a mapping, given {section!r}")
            return {}
        return section

    def stop(self) -> None:
        """Raises what has been taken, if anything has."""
        if self._lines:
            raise BadInput("\n".join(self._lines))


def _find(name_or_path: str | Path) -> Path:
    if str(name_or_path) in preset_names():
        return preset_path(str(name_or_path))
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise BadInput(f"space file {path} is not there; give a path to a YAML file or a preset ({', '.join(preset_names())})")
    return preset_path(str(name_or_path))


def _read_yaml(text: str, where: str) -> Any:
    parser = YAML(typ="safe", pure=True)
    parser.version = (1, 2)
    try:
        return parser.load(StringIO(text))
    except DuplicateKeyError as error:
        raise BadInput(f"{_place(where, error)}: duplicate key{_quoted(error.problem)}; keep one of the two") from None
    except ConstructorError as error:
        raise BadInput(f"{_place(where, error)}: tags are refused, a space file is plain data ({error.problem})") from None
    except MarkedYAMLError as error:
        raise BadInput(f"{_place(where, error)}: not YAML: {error.problem or error.context}") from None


def _place(where: str, error: MarkedYAMLError) -> str:
    return where if error.problem_mark is None else f"{where}:{error.problem_mark.line + 1}"


def _quoted(problem: str | None) -> str:
    found = re.search(r'duplicate key "([^"]*)"', problem or "")
    return f" {found.group(1)}" if found else ""


def _parse_assignment(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or not value.strip():
        raise BadInput(f"--set {text}: expected path=value, such as clip_norm=0.1 or sweep.trials_per_epsilon=4")
    return path.strip(), _read_yaml(value, f"--set {path.strip()}")


def _assign(document: dict[str, Any], given: dict[str, Any]) -> None:
    """Puts assignments into the document. A searched path with a condition keeps it, as a choice of one value."""
    for path, value in given.items():
        section = path.split(".")[0]
        if section in ("sweep", "references") or path == "constraints":
            set_value(document, path, value)
            continue
        if not _is_trial_path(path):
            raise BadInput(f"--set {path}: {_unknown_path(path)}")
        search = document.get("search") if isinstance(document.get("search"), dict) else None
        searched = None if search is None else search.pop(path, None)
        for at in (document.get("search_at") or {}).values():
            at.pop(path, None)
        when = searched.get("when") if isinstance(searched, dict) else None
        if search is not None and when:
            search[path] = {"choice": [value], "when": when}
        else:
            set_value(document, f"trial.{path}", value)


def _is_trial_path(path: str) -> bool:
    *parents, leaf = path.split(".")
    return leaf in field_names(TrialConfig, parents)


def _unknown_path(path: str) -> str:
    """What is wrong with a dotted path that TrialConfig does not have."""
    parts = path.split(".")
    for depth, part in enumerate(parts):
        known = field_names(TrialConfig, parts[:depth])
        if part not in known:
            return f"unknown key {part}{did_you_mean(part, known)}"
    return "unknown key"


def _parameters(section: dict[Any, Any], where: str, mistakes: Mistakes) -> dict[str, Parameter]:
    parameters = {}
    for path, values in section.items():
        place = f"{where}.{path}"
        if not _is_trial_path(str(path)):
            mistakes.add(f"{place}: {_unknown_path(str(path))}")
        elif (why := why_not_searchable(str(path))) is not None:
            mistakes.add(f"{place}: {why}")
        elif (parameter := _parameter(values, place, mistakes)) is not None:
            parameters[str(path)] = parameter
    return parameters


def _parameter(values: Any, place: str, mistakes: Mistakes) -> Parameter | None:
    if not isinstance(values, dict):
        mistakes.add(f"{place}: expected {{choice: [...]}}, {{int: [low, high]}} or {{float: [low, high]}}, given {values!r}")
        return None
    kinds = [key for key in PARAMETER_KINDS if key in values]
    allowed = ["when", *PARAMETER_KINDS] if kinds == ["choice"] else ["when", "log", *PARAMETER_KINDS]
    unknown = [key for key in values if key not in allowed]
    for key in unknown:
        mistakes.add(f"{place}.{key}: unknown key{did_you_mean(str(key), allowed)}")
    if len(kinds) != 1:
        mistakes.add(f"{place}: expected exactly one of choice, int, float, given {', '.join(kinds) or 'none'}")
    if unknown or len(kinds) != 1:
        return None
    parameter: Parameter | None = mistakes.attempt(PARAMETER_KINDS[kinds[0]], values, place)
    return parameter


def _search_at(
    section: dict[Any, Any], search: dict[str, Parameter], *, epsilons: Iterable[float] | None, mistakes: Mistakes
) -> dict[float, dict[str, Parameter]]:
    found: dict[float, dict[str, Parameter]] = {}
    for key, values in section.items():
        if isinstance(key, bool) or not isinstance(key, (int, float)):
            mistakes.add(f"search_at.{key}: expected an epsilon")
        elif epsilons is not None and float(key) not in epsilons:
            mistakes.add(f"search_at.{key}: no such epsilon in sweep.epsilons ({', '.join(f'{e:g}' for e in epsilons)})")
        elif not isinstance(values, dict):
            mistakes.add(f"search_at.{key}: expected a mapping of parameters, given {values!r}")
        else:
            for path in values:
                if path not in search:
                    mistakes.add(f"search_at.{key}.{path}: not under search{did_you_mean(str(path), list(search))}")
            found[float(key)] = _parameters({p: v for p, v in values.items() if p in search}, f"search_at.{key}", mistakes)
    return found


def _constraints(values: Any, splits: Iterable[Any], mistakes: Mistakes) -> tuple[str, ...]:
    """The texts of the section `constraints`, each checked by itself; whether draws can keep them is judged with whole draws later."""
    if values is None:
        return ()
    if not isinstance(values, list):
        mistakes.add(f"constraints: expected a list of conditions, such as [clip_norm < 1 or method == dpsgd], given {values!r}")
        return ()
    for number, text in enumerate(values):
        if not isinstance(text, str):
            mistakes.add(f"constraints.{number}: expected a condition such as clip_norm < 1 or method == dpsgd, given {text!r}")
            continue
        try:
            Constraint.parse(text, splits=map(str, splits))
        except ValueError as error:
            mistakes.add(f"constraints.{number}: {error}")
    return tuple(values)


def _check_trial_keys(trial: dict[Any, Any], mistakes: Mistakes, parents: tuple[str, ...] = ()) -> None:
    """Finds unknown keys of `trial` at every depth; the values are judged with whole draws later."""
    known = field_names(TrialConfig, list(parents))
    for key, value in trial.items():
        place = ".".join(("trial", *parents, str(key)))
        if key not in known:
            mistakes.add(f"{place}: unknown key{did_you_mean(str(key), known)}")
        elif not parents and key in SET_BY_THE_SWEEP:
            mistakes.add(f"{place}: the sweep sets it; see sweep.epsilons and sweep.delta")
        elif isinstance(value, dict) and field_names(TrialConfig, [*parents, str(key)]):
            _check_trial_keys(value, mistakes, (*parents, str(key)))


def _space_mistakes(space: SpaceFile) -> list[str]:
    """What only the whole file can show: conditions, split names, what the accounting needs fixed."""
    found = [f"{where}: {why}" for where, why in space.undeclared_paths()]
    places = [("search", space.search), *((f"search_at.{e:g}", p) for e, p in space.search_at.items())]
    for where, parameters in places:
        for path, parameter in parameters.items():
            place = f"{where}.{path}"
            found += [f"{place}.when.{key}: {why}" for key, why in _condition_mistakes(space, parameter)]
            if path == "split" and isinstance(parameter, Choice):
                found += [f"{place}: {_unknown_split(space, s)}" for s in parameter.choice if s is not None and s not in space.splits]
            if value_at(space.trial, path) is not None:
                found.append(f"{place}: also fixed in trial; keep one of the two")
            if space.sweep.regime.is_selection and path in SPENDING_PATHS:
                found.append(f"{place}: {space.sweep.accounting} chooses among trials that cost the same; move it to trial")
            if space.sweep.sampler_traits.is_listed and not isinstance(parameter, Choice):
                found.append(f"{place}: sampler {space.sweep.sampler} needs choices, given a range")
    split = value_at(space.trial, "split")
    if split is not None and split not in space.splits:
        found.append(f"trial.split: {_unknown_split(space, split)}")
    if space.sweep.delta is None and value_at(space.trial, "data.nominal_examples") is None:
        found.append("sweep.delta: give it a value, or fix trial.data.nominal_examples (its default is 1 / (10 nominal_examples))")
    found += [*_regime_mistakes(space), *_stopper_mistakes(space)]
    if not found:
        found += _cycle(space)
    return found or _join_mistakes(space)


def _regime_mistakes(space: SpaceFile) -> Iterable[str]:
    """What an accounting regime needs of `trial` and `search`."""
    regime, has_proxy = space.sweep.regime, value_at(space.trial, "data.proxy") is not None
    if not regime.reads_private and not has_proxy:
        yield f"trial.data.proxy: accounting {regime.name} rehearses on a PUBLIC dataset; name it, with data.proxy_examples"
    elif regime.reads_private and has_proxy:
        yield f"trial.data.proxy: trials of accounting {regime.name} read the private data; leave it out, or set public_proxy"
    if value_at(space.trial, "relation") == "replace" and (regime.is_selection or space.searches_spending):
        yield "trial.relation: RDP, which prices private_selection and searched q or steps, gives no bound for replace; use add_remove"
    if regime.is_selection and space.unbounded_methods:
        named = ", ".join(space.unbounded_methods)
        yield f"search.method: {named} spends without bound, so nothing can be selected from it privately; leave it out"
    yield from regime.refusals(space)


def _stopper_mistakes(space: SpaceFile) -> Iterable[str]:
    """A stopper compares trials at equal steps of one horizon."""
    horizon = value_at(space.trial, HORIZON_PATH)
    if space.sweep.stopper == "none":
        return
    if any(HORIZON_PATH in parameters for parameters in (space.search, *space.search_at.values())):
        yield (
            f"search.{HORIZON_PATH}: stopper {space.sweep.stopper} compares trials at equal steps of one horizon, and noise and schedule "
            "follow the horizon; move it to trial, or use stopper none"
        )
    elif space.sweep.stopper == "halving" and space.searches_spending:
        searched = ", ".join(path for path in SPENDING_PATHS if any(path in p for p in (space.search, *space.search_at.values())))
        yield f"search.{searched}: stopper halving is priced for one q; move it to trial, or use stopper asha"
    elif isinstance(horizon, int) and space.stopping_grace_steps >= horizon:
        yield (
            f"sweep.stopping.grace_steps: {space.stopping_grace_steps} leaves no step before the horizon of {horizon}; give fewer, "
            "or use stopper none"
        )


def _join_mistakes(space: SpaceFile) -> list[str]:
    """All views of a record are public together. What one split hides, another must not show: `background` leaves the person
    as it is, `head` and `person` leave the background, and an attacker who holds both views holds the whole image."""
    name_of = {split.region: split.name for split in space.splits_in_use}
    return [
        f"splits: {name_of['background']} hides the background and {name_of[region]} the {region}: together they publish the whole image; "
        "keep one of the two in this sweep"
        for region in ("person", "head")
        if region in name_of and "background" in name_of
    ]


def _unknown_split(space: SpaceFile, split: Any) -> str:
    return f"unknown split {split}{did_you_mean(str(split), list(space.splits)) or '; splits: defines none'}"


def _condition_mistakes(space: SpaceFile, parameter: Parameter) -> Iterable[tuple[str, str]]:
    for key, allowed in parameter.when.items():
        parent = space.search.get(key)
        fixed = value_at(space.trial, key)
        if isinstance(parent, Choice):
            known = {
                value for p in (parent, *(at.get(key) for at in space.search_at.values())) if isinstance(p, Choice) for value in p.choice
            }
            for value in allowed:
                if value not in known:
                    yield key, f"{value} is not among the choices of {key}{did_you_mean(str(value), sorted(map(str, known)))}"
        elif parent is not None:
            yield key, "a condition reads a choice, and this is a range"
        elif fixed is None:
            yield key, f"neither a searched choice nor fixed in trial{did_you_mean(key, list(space.search))}"


def _cycle(space: SpaceFile) -> list[str]:
    try:
        for epsilon in {*space.sweep.epsilons, *space.search_at}:
            space.parameters_at(epsilon)
    except ValueError as error:
        return [f"search: {error}"]
    return []
