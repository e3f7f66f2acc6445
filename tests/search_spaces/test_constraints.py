"""Constraints between settings: what an expression may say, what it means, and what a file that says nonsense is told."""

import json
import random
from contextlib import suppress
from typing import Any

import pytest
import spaces
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dpcore.config import TrialConfig
from dpcore.errors import BadInput
from search_spaces.admission import admissible_grid
from search_spaces.constraints import Constraint, ConstraintBroken, ConstraintFault
from search_spaces.expressions import LONGEST
from search_spaces.loader import build_space, load_space
from search_spaces.space import SpaceFile

SEARCH: dict[str, Any] = {
    "method": {"choice": ["dpsgd", "projected", "feature"]},
    "split": {"choice": ["blur"], "when": {"method": ["feature"]}},
    "clip_norm": {"float": [0.01, 2.0]},
    "subspace.rank": {"choice": [8, 32, "full"], "when": {"method": ["projected"]}},
    "subspace.examples": {"choice": [16, 64]},
}


def constrained(*constraints: Any, **sections: Any) -> SpaceFile:
    document = spaces.document(search=sections.pop("search", SEARCH), **sections)
    return build_space({**document, "constraints": list(constraints)}, name="example")


def mistakes(*constraints: Any, **sections: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        constrained(*constraints, **sections)
    return str(caught.value).splitlines()


def trial(**draw: Any) -> TrialConfig:
    paths = {path.replace("__", "."): value for path, value in draw.items()}
    return spaces.space(search=SEARCH).trial_config(0.5, {"method": "dpsgd", "clip_norm": 0.37, **paths})


def holds(text: str, config: TrialConfig) -> bool:
    try:
        Constraint.parse(text).check(config)
    except ConstraintBroken:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("clip_norm < 1", True),
        ("clip_norm > 1 or method == dpsgd", True),
        ("clip_norm > 1 and method == dpsgd", False),
        ("not (clip_norm < 1)", False),
        ("dpsgd == method", True),
        ("method in [feature, projected]", False),
        ("method not in [feature, 'projected']", True),
        ("0.3 < clip_norm <= 0.37", True),
        ("0.37 < clip_norm < 1", False),
        ("stages.private.steps * sampling_prob <= 0.03", True),  # 3 · 10 / 1000
        ("stages.private.steps * sampling_prob < 0.03", False),
        ("-clip_norm + 2 * 3 - 1 / 4 > 5.37", True),
        ("min(clip_norm, 5, 0.4) == 0.37 and max(1, 2) == 2 and abs(-clip_norm) == 0.37", True),
        ("subspace.examples == 256", True),  # a default counts
        ("epsilon == 0.5 and delta < 1e-4", True),
        ("data.private == 'synthetic/private'", True),
        ("optimizer.dp_bias_correction == false", True),
        ("not optimizer.dp_bias_correction", True),
    ],
)
def test_an_expression_means_what_it_says(text: str, expected: bool) -> None:
    assert holds(text, trial()) is expected


@pytest.mark.parametrize("text", ["subspace.rank <= 8", "subspace.rank > 8", "not (subspace.rank > 8)", "subspace.rank * 2 == 16"])
def test_a_setting_without_a_value_breaks_nothing(text: str) -> None:
    assert holds(text, trial())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ema_decay == null", True),
        ("null != ema_decay", False),
        ("ema_decay in [0.9, null]", True),
        ("subspace.rank > 8 and clip_norm > 1", False),  # false and x is false
        ("clip_norm > 1 and subspace.rank > 8", False),
        ("subspace.rank > 8 or clip_norm > 1", True),  # neither true nor false
        ("split == blur", True),
        ("split == null", True),
    ],
)
def test_what_has_no_value_is_neither_true_nor_false(text: str, expected: bool) -> None:
    assert holds(text, trial()) is expected


def test_a_broken_constraint_names_itself_and_the_values_of_the_draw() -> None:
    with pytest.raises(ConstraintBroken) as caught:
        Constraint.parse("stages.private.steps * sampling_prob <= 0.01 or (split == null and method == feature)").check(trial())
    assert str(caught.value) == (
        "constraint `stages.private.steps * sampling_prob <= 0.01 or (split == null and method == feature)` does not hold "
        "(stages.private.steps 3, sampling_prob 0.01, split has no value, method dpsgd)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip_nrom < 1", "names clip_nrom, which is no setting; did you mean clip_norm?"),
        ("methd == dpsgd", "names methd, which is no setting; did you mean method?"),
        ("method == dpsdg", "compares method with dpsdg, which it cannot be (unknown method dpsdg; did you mean dpsgd?"),
        ("split == blurr", "compares split with blurr, which splits: does not define; did you mean blur?"),
        ("subspace.rank == ful", "compares subspace.rank with ful, which it cannot be"),
        ("subspace.rank == 0.5", "compares subspace.rank with 0.5, which it cannot be"),
        ("optimizer < 3", "names optimizer, which is no setting; did you mean optimizer.name?"),
        ("method < 3", "< needs a number, given a text"),
        ("clip_norm == method", "compares a number with a text: they are never equal"),
        ("clip_norm and method == dpsgd", "and needs a condition, given a number"),
        ("clip_norm + 1", "is a number, not a condition"),
        ("1 < 2", "reads no setting of a trial"),
        ("clip_norm = 1", "== asks whether two are equal"),
        ("clip_norm is 1", "== asks whether two are equal"),
        ("clip_norm < 1 &&", "is no expression"),
        ("clip_norm ** 9 < 1", "of arithmetic there are + - * / alone"),
        ("method in (dpsgd, feature)", "in needs a list"),
        ("sqrt(clip_norm) < 1", "there is no function sqrt; expected one of abs, max, min"),
        ("max(clip_norm) < 1", "max takes two numbers or more"),
        ("", "is no expression"),
        (3, "expected a condition such as"),
        (True, "expected a condition such as"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_do(text: object, message: str) -> None:
    (line,) = mistakes("clip_norm > 0", text)
    assert line.startswith("constraints.1: ")
    assert message in line


def test_all_mistakes_are_told_at_once() -> None:
    assert len(mistakes("clip_nrom < 1", "methd == dpsgd", sweep={"trials_per_epsilon": 0})) == 3
    (line,) = mistakes_of_section("clip_norm < 1")
    assert line.startswith("constraints: expected a list of conditions")


def mistakes_of_section(section: object) -> list[str]:
    with pytest.raises(BadInput) as caught:
        build_space({**spaces.document(), "constraints": section}, name="example")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true') == 0",
        "().__class__ == 1",
        "method.__class__ == dpsgd",
        "model.model_dump() == 1",
        "(lambda: 1)() < clip_norm",
        "[x for x in [1]] == clip_norm",
        "f'{clip_norm}' == method",
        "(clip_norm := 1) < 2",
        "clip_norm if True else clip_norm",
        "{1: 2}[1] < clip_norm",
        "method % 3 == 1",
        "'a' * 999999999 == method",
        "9 ** 9 ** 9 < clip_norm",
        "min(*[1, 2]) < clip_norm",
        "max(1, 2, key=abs) < clip_norm",
        "await clip_norm",
        "b'x' == method",
        "clip_norm < 1j",
        "'\\x41' == method",
        "1or clip_norm < 1",
    ],
)
def test_nothing_in_an_expression_runs_code(text: str) -> None:
    with pytest.raises(ValueError, match=r"^`"):
        Constraint.parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 150 + "clip_norm" + ")" * 150 + " < 1", "-" * 480 + "clip_norm < 1", "not " * 115 + "clip_norm < 1"]
)
def test_a_deeply_nested_text_is_a_condition_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert Constraint.parse(text).paths == ("clip_norm",)


@given(st.text(alphabet="clip_norm<>=! 1()[]dpsgd.andornotin*/+-'", max_size=60))
def test_any_text_is_a_condition_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert Constraint.parse(text).paths


def test_a_longer_text_than_anybody_writes_is_not_parsed() -> None:
    with pytest.raises(ValueError, match="write several constraints"):
        Constraint.parse("clip_norm < 1" + " " * LONGEST)


def test_every_draw_keeps_the_constraints_and_the_others_are_refused() -> None:
    space = constrained("clip_norm < 0.5 or method == dpsgd", "subspace.rank == full or subspace.rank <= subspace.examples")
    generator, kept, refused = random.Random(3), [], 0
    for _ in range(400):
        try:
            kept.append(space.trial_config(0.5, space.draw(0.5, generator)))
        except BadInput as refusal:
            refused += isinstance(refusal, ConstraintBroken)
    assert refused > 100
    assert all(config.clip_norm < 0.5 or config.method == "dpsgd" for config in kept)  # type: ignore[operator]
    ranks = {config.subspace.rank for config in kept if config.subspace.examples == 16}
    assert ranks == {None, 8, "full"}


def test_a_grid_leaves_out_the_points_that_break_one() -> None:
    search = {**SEARCH, "clip_norm": {"choice": [0.1, 1.0]}}
    grid = constrained("clip_norm < 1 or method == dpsgd", search=search, sweep={"sampler": "grid", "trials_per_epsilon": None})
    points = admissible_grid(grid, 0.5)
    assert len(points) == 4 + 5 + 2  # dpsgd, projected (a rank of 32 on 16 examples is refused by TrialConfig), feature
    assert {draw["method"] for draw in points if draw["clip_norm"] == 1.0} == {"dpsgd"}


def test_a_space_that_its_constraints_leave_empty_is_said_with_the_rule() -> None:
    (line,) = mistakes("clip_norm > 2.5")
    assert line == "trial: no draw is admissible at epsilon 0.5, 2: constraint `clip_norm > 2.5` does not hold"
    (line,) = mistakes("stages.private.steps > 3")
    assert "constraint `stages.private.steps > 3` does not hold" in line
    line, because = mistakes("method != feature")
    assert because.startswith("search.split blur: ")
    assert line.startswith("search.method feature: no draw is admissible at epsilon 0.5, 2: constraint `method != feature`")


def test_a_constraint_may_take_a_value_out_at_one_epsilon() -> None:
    space = constrained("method != feature or epsilon > 1")
    methods = {
        epsilon: {
            draw["method"] for draw in (space.draw(epsilon, random.Random(seed)) for seed in range(40)) if admitted(space, epsilon, draw)
        }
        for epsilon in (0.5, 2.0)
    }
    assert methods == {0.5: {"dpsgd", "projected"}, 2.0: {"dpsgd", "projected", "feature"}}


def admitted(space: SpaceFile, epsilon: float, draw: Any) -> bool:
    try:
        space.trial_config(epsilon, draw)
    except BadInput:
        return False
    return True


def test_what_cannot_be_computed_for_a_draw_is_said_when_the_file_is_loaded() -> None:
    (line,) = mistakes("subspace.rank <= 8")
    assert line.startswith("constraints: constraint `subspace.rank <= 8` cannot be computed (full is no number; subspace.rank full)")
    (line,) = mistakes("1 / (subspace.examples - 64) < 3")
    assert "division by zero" in line
    with pytest.raises(ConstraintFault):
        Constraint.parse("1 / stages.public.steps < 3").check(trial())


def test_a_space_with_constraints_survives_json_and_one_without_is_hashed_as_before() -> None:
    space = constrained("clip_norm < 1 or method == dpsgd")
    again = SpaceFile.model_validate(json.loads(json.dumps(space.document())))
    assert again == space
    assert "constraints" not in spaces.space().document()
    with pytest.raises(ValidationError, match="names clip_nrom, which is no setting"):
        SpaceFile.model_validate({**space.document(), "constraints": ["clip_nrom < 1"]})
    schema = SpaceFile.model_json_schema()["properties"]["constraints"]
    assert schema["items"] == {"type": "string"}


def test_a_flag_sets_the_constraints_of_a_preset() -> None:
    space = load_space("quick", assignments=["constraints=[clip_norm < 0.5 or method == dpsgd]"])
    assert space.constraints == ("clip_norm < 0.5 or method == dpsgd",)
    assert load_space("quick", assignments={"constraints": []}).constraints == ()


def test_a_method_that_is_owed_trials_at_an_epsilon_must_have_draws_there() -> None:
    """Else a search with equal shares would break off after it has spent."""
    rule = "method != feature or epsilon > 1"
    assert constrained(rule).methods == ("dpsgd", "projected", "feature")
    (line,) = mistakes(rule, sweep={"method_shares": "equal"})
    assert line.startswith("search.method feature: no draw is admissible at epsilon 0.5: ")
