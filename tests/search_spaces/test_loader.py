"""Each mistake in a space file is one line with its path; a good file loads without torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import search_spaces
from dpcore.errors import BadInput
from search_spaces.loader import build_space, load_space
from search_spaces.presets import preset_names
from search_spaces.space import Choice, FloatRange

GOOD = """
sweep: {epsilons: [0.2, 0.8], delta: 1e-5, trials_per_epsilon: 4, accounting: composed}
splits: {blur_10: {transform: gaussian_blur, sigma_px: 10}}
trial:
  data: {private: p, public: q, validation: v, nominal_examples: 1000}
  stages: {public_view: {until: converged}, private: {steps: 10, expected_batch_size: 50}}
search:
  method: {choice: [dpsgd, projected, feature]}
  clip_norm: {float: [1e-3, 10.0], log: true}
  subspace.rank: {int: [4, 64], log: true, when: {method: projected}}
  split: {choice: [blur_10], when: {method: [feature]}}
"""

COUNTED = "trials_per_epsilon: 4, accounting: composed"
STOPPER = "accounting: composed, stopper: asha"
PRIVATE_SCORES = "validation: private, validation_epsilon: 1, validation_units: 100"
SECRET = "accounting: private_selection, selection: {mean_trials: 10, shape: 1}"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, old: str, new: str, **given: object) -> list[str]:
    assert old in GOOD
    with pytest.raises(BadInput) as caught:
        load_space(write(tmp_path, GOOD.replace(old, new)), **given)
    return str(caught.value).splitlines()


def test_a_good_file_loads_with_yaml_1_2_numbers(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GOOD))
    assert space.delta == 1e-5
    assert space.search["clip_norm"] == FloatRange(bounds=(1e-3, 10.0), log=True)
    assert space.search["subspace.rank"].when == {"method": ("projected",)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clip_norm:", "clip_nrom:", "search.clip_nrom: unknown key clip_nrom; did you mean clip_norm?"),
        ("steps: 10", "stesp: 10", "trial.stages.private.stesp: unknown key; did you mean steps?"),
        ("delta: 1e-5", "dleta: 1e-5", "sweep.dleta: unknown key; did you mean delta?"),
        ("splits:", "split:", "split: unknown key; did you mean splits?"),
        ("[1e-3, 10.0]", "[10.0, 1e-3]", "bounds are reversed"),
        ("[1e-3, 10.0]", "[0.0, 10.0]", "log: true needs a lower bound"),
        ("[4, 64]", "[0, 64]", "log: true needs a lower bound of at least 1"),
        ("[4, 64]", "[400, 900]", "is more than the 256 public examples"),
        ("[0.2, 0.8]", "[0.2, -1]", "every epsilon must be greater than 0, given -1"),
        ("[0.2, 0.8]", "[0.2, 0]", "every epsilon must be greater than 0, given 0"),
        ("[0.2, 0.8]", "[0.2, .nan]", "finite"),
        ("choice: [blur_10]", "choice: [blur_11]", "search.split: unknown split blur_11; did you mean blur_10?"),
        ("accounting: composed", "accounting: public_proxy", "trial.data.proxy: accounting public_proxy rehearses on a PUBLIC dataset"),
        ("p, public", "p, proxy: z, proxy_examples: 9, public", "trials of accounting composed read the private data"),
        (
            "accounting: composed",
            "accounting: everything",
            "sweep.accounting: unknown regime everything; expected one of composed, ",
        ),
        ("accounting: composed", "accounting: private_selection", "selection: private_selection draws the number of trials"),
        (COUNTED, f"{SECRET}, trials_per_epsilon: 4, sampler: random", "trials_per_epsilon: private_selection draws"),
        (COUNTED, f"{SECRET}, sampler: tpe", "tpe chooses draws by what came before"),
        (COUNTED, f"{SECRET}, sampler: grid", "grid chooses draws by what came before or runs a fixed list"),
        ("accounting: composed", "accounting: composed, selection: {mean_trials: 3}", "it is the law of private_selection"),
        (COUNTED, f"{SECRET.replace('10', '0.5')}, sampler: random", "sweep.selection.mean_trials: input should be greater"),
        (", accounting: composed", "", "sweep.accounting: missing"),
        (
            "accounting: composed",
            "accounting: composed, stopper: ahsa",
            "sweep.stopper: input should be 'none', 'asha', 'median' or 'halving'",
        ),
        ("accounting: composed", "accounting: composed, stopping: {grace_steps: 2}", "these are a stopper's settings"),
        ("accounting: composed", f"{STOPPER}, stopping: {{min_others: 2}}", "stopping.min_others: stopper asha does not have it"),
        ("accounting: composed", f"{STOPPER}, stopping: {{grace_steps: 10}}", "10 leaves no step before the horizon of 10"),
        (
            "accounting: composed",
            f"{STOPPER}, stopping: {{reduction_factor: 1}}",
            "sweep.stopping.reduction_factor: input should be greater",
        ),
        ("steps: 10, expected", "expected", "trial.stages.private.steps: missing"),
        ("steps: 10", "steps: ten", "trial.stages.private.steps: input should be a valid integer"),
        ("method: projected}", "method: projceted}", "projceted is not among the choices of method; did you mean projected?"),
        ("when: {method: projected}", "when: {start: public}", "neither a searched choice nor fixed in trial"),
        ("search:", "search:\n  epsilon: {float: [0.1, 1.0]}", "search.epsilon: the sweep sets it"),
        ("search:", "search:\n  relation: {choice: [add_remove, replace]}", "search.relation: it says what every ε of the sweep is about"),
        ("search:", "search:\n  stages.private.steps: {int: [5, 10]}", "also fixed in trial"),
        ("clip_norm: {float", "clip_norm: {flaot", "search.clip_norm.flaot: unknown key; did you mean float?"),
        ("search:", "search_at: {0.3: {clip_norm: {float: [0.1, 1.0]}}}\nsearch:", "search_at.0.3: no such epsilon in sweep.epsilons"),
        ("search:", "search_at: {0.2: {clip: {float: [0.1, 1.0]}}}\nsearch:", "search_at.0.2.clip: not under search"),
        ("p, public", "!!python/object/apply:os.system [true], public", "tags are refused"),
        ("delta: 1e-5", "delta: 1e-5, delta: 1e-6", "duplicate key delta"),
        ("trial:\n", "trial: [\n", "not YAML"),
        ("[4, 64], log: true", "[4, 64], log: true, float: [1, 2]", "expected exactly one of choice, int, float"),
    ],
)
def test_a_mistake_is_one_line_that_says_where_and_what_was_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    lines = refusal(tmp_path, old, new)
    assert len([line for line in lines if message in line]) == 1, lines
    assert all(": " in line for line in lines)


def test_the_example_of_the_readme_loads(tmp_path: Path) -> None:
    text = (Path(search_spaces.__file__).parent / "README.md").read_text(encoding="utf-8")
    example = text.partition("## A space file")[2].strip("\n").partition("\n\n")[0]
    space = load_space(write(tmp_path, example))
    assert (space.sweep.stopper, space.stopping_grace_steps) == ("asha", 30)


@pytest.mark.parametrize("stopper", ["asha", "median"])
def test_a_stopper_is_refused_where_scores_are_private_or_trials_must_not_know_of_each_other(tmp_path: Path, stopper: str) -> None:
    stopped = f"accounting: composed, stopper: {stopper}"
    assert load_space(write(tmp_path, GOOD.replace("accounting: composed", stopped))).sweep.stopper == stopper
    with pytest.raises(BadInput, match="each score on the way would be a further release"):
        load_space(write(tmp_path, GOOD.replace("accounting: composed", f"{stopped}, {PRIVATE_SCORES}")))
    with pytest.raises(BadInput, match="priced for trials that do not depend on each other"):
        load_space(write(tmp_path, GOOD.replace(COUNTED, f"{SECRET}, sampler: random, stopper: {stopper}")))


def test_a_stopper_needs_one_horizon(tmp_path: Path) -> None:
    searched = GOOD.replace("steps: 10, ", "").replace("search:", "search:\n  stages.private.steps: {int: [5, 10]}")
    with pytest.raises(BadInput, match="asha compares trials at equal steps of one horizon"):
        load_space(write(tmp_path, searched.replace("accounting: composed", STOPPER)))


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "clip_norm: {float: [1e-3, 10.0]", "clipnorm: {float: [1e-3, 10.0]", epsilons=[-1.0])
    assert len(lines) == 2


def test_a_searched_horizon_is_taken_but_for_a_selection_and_for_replacement(tmp_path: Path) -> None:
    searched = GOOD.replace("steps: 10, ", "").replace("search:", "search:\n  stages.private.steps: {int: [5, 10]}")
    assert load_space(write(tmp_path, searched)).searches_spending
    assert not load_space(write(tmp_path, GOOD)).searches_spending
    with pytest.raises(BadInput, match="private_selection chooses among trials that cost the same"):
        load_space(write(tmp_path, searched.replace(COUNTED, f"{SECRET}, sampler: random")))
    with pytest.raises(BadInput, match="no bound for replace"):
        load_space(write(tmp_path, searched.replace("trial:\n", "trial:\n  relation: replace\n")))


def test_a_selection_needs_private_methods(tmp_path: Path) -> None:
    secret = GOOD.replace(COUNTED, f"{SECRET}, sampler: random")
    assert load_space(write(tmp_path, secret)).sweep.selection.text() == "geometric law with mean 10"
    with pytest.raises(BadInput, match="nonprivate spends without bound"):
        load_space(write(tmp_path, secret.replace("choice: [dpsgd", "choice: [nonprivate, dpsgd")))


@pytest.mark.parametrize(
    ("regions", "covered"), [(("background", "head"), True), (("background", "person"), True), (("head", "person"), False)]
)
def test_splits_whose_views_show_the_whole_image_together_are_refused(regions: tuple[str, str], covered: bool) -> None:
    document: dict[str, Any] = {
        "sweep": {"epsilons": [0.5], "delta": 1e-5, "trials_per_epsilon": 2, "accounting": "composed"},
        "splits": {region: {"transform": "pixelate", "cell_px": 8, "region": region} for region in regions},
        "trial": {
            "method": "feature",
            "clip_norm": 1.0,
            "data": {"private": "a", "public": "b", "validation": "c", "nominal_examples": 100},
            "stages": {"private": {"steps": 3, "expected_batch_size": 10}},
        },
        "search": {"split": {"choice": list(regions)}},
    }
    if not covered:
        assert len(build_space(document, name="regions").splits_in_use) == 2
        return
    with pytest.raises(BadInput, match="together they publish the whole image"):
        build_space(document, name="regions")


def test_narrowed_epsilons_drop_what_search_at_says_of_others(tmp_path: Path) -> None:
    text = GOOD.replace("search:", "search_at: {0.8: {clip_norm: {float: [0.1, 1.0]}}}\nsearch:")
    assert load_space(write(tmp_path, text), epsilons=[0.2]).sweep.epsilons == (0.2,)
    assert load_space(write(tmp_path, text)).parameters_at(0.8)["clip_norm"] == FloatRange(bounds=(0.1, 1.0))


def test_set_fixes_a_path_and_ends_its_search(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GOOD), assignments=["clip_norm=0.5", "subspace.rank=16", "sweep.trials_per_epsilon=2"])
    assert "clip_norm" not in space.search
    assert space.trial["clip_norm"] == 0.5
    assert space.search["subspace.rank"] == Choice(choice=(16,), when={"method": ("projected",)})
    assert space.sweep.trials_per_epsilon == 2


@pytest.mark.parametrize("text", ["clip_norm", "=3", "clip_nrom=1", "stages.private.stesp=3"])
def test_a_wrong_assignment_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadInput, match="--set"):
        load_space(write(tmp_path, GOOD), assignments=[text])


def test_a_missing_file_and_an_unknown_preset_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not there"):
        load_space(tmp_path / "no.yaml")
    with pytest.raises(BadInput, match="did you mean quick"):
        load_space("quikc")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_round_trips(name: str) -> None:
    space = load_space(name)
    assert type(space).model_validate(space.document()) == space
    assert space.sweep.accounting == "composed"


def test_loading_needs_neither_torch_nor_optuna() -> None:
    code = (
        "import sys; from search_spaces.loader import build_space, load_space; load_space('quick');"
        "assert not {'torch', 'optuna', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_whether_labels_are_public_is_fixed_and_never_searched(tmp_path: Path) -> None:
    assert load_space(write(tmp_path, GOOD.replace("trial:", "trial:\n  labels: private"))).trial["labels"] == "private"
    lines = refusal(tmp_path, "search:", "search:\n  labels: {choice: [public, private]}")
    assert lines == ["search.labels: whether labels are public is for the data's owner to say, once: fix it in trial"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes("# größe\nsweep: {}\n".encode(encoding))
    with pytest.raises(BadInput, match=r"space\.yaml: not UTF-8 text"):
        load_space(path)
