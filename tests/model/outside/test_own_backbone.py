"""One's own network from a file: as the documentation shows it, with its code in the trial's identity."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpcore.config import ModelConfig, Places, RuntimeFlags, TrialConfig, parse_config
from dpcore.errors import BadInput
from dpcore.model.network import build_network, codec_of, weights_digest
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.row_check import require_right_rows
from dpcore.train.evaluator import loss_of
from dpcore.train.replay import replay_document
from dpcore.train.saved import load_model, save_model

GUIDE = Path(__file__).parents[3] / "docs" / "networks.md"
NETWORK = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]  # type: ignore[index]
SPACE = re.search(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)[1]  # type: ignore[index]

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into the working directory and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names: list[str] = []

    def forget() -> None:
        for name in names:
            sys.modules.pop(name, None)

    def one(text: str, name: str = "my_network") -> str:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        names.append(name)
        forget()
        return f"{name}:build"

    yield one
    forget()


def config_of(backbone: str, **changes: object) -> ModelConfig:
    return parse_config(ModelConfig, {"backbone": backbone, "batch_norm": "group_norm", "freeze": "ft", **changes})


def built(config: ModelConfig, places: Places, seed: int = 3) -> object:
    return build_network(config, places, generator=torch.Generator().manual_seed(seed))


def trial_of(model: ModelConfig) -> TrialConfig:
    data = {"private": "a", "public": "b", "validation": "c", "nominal_examples": 9}
    values = {"method": "public_only", "data": data, "stages": {"private": {"steps": 1, "expected_batch_size": 1}}}
    return parse_config(TrialConfig, {**values, "model": model.model_dump(mode="json")})


def test_the_documented_file_is_a_chain_whose_rows_are_right(write: Write, places: Places) -> None:
    config = config_of(write(NETWORK))
    network = built(config, places)
    assert list(network.parts) == ["0", "1", "2", "head"]  # type: ignore[attr-defined, call-overload]
    assert weights_digest(network.state_dict()) == weights_digest(built(config, places).state_dict())  # type: ignore[attr-defined]
    split = network.split("early")  # type: ignore[attr-defined]
    assert len(split.stem) == 2
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        batch = Batch(split.stem(images), 64 * torch.rand(3, 16, 2), torch.ones(3, 16, dtype=torch.bool))
    require_right_rows(GradientEngine(split.tail, loss_of(codec_of(config))), batch, precision="fp32")


def test_its_code_and_what_it_imports_beside_it_is_part_of_the_identity(write: Write, places: Places) -> None:
    write("import torch\nWIDTH = 12\n", "my_sizes")
    text = NETWORK.replace("from torch import", "from my_sizes import WIDTH\nfrom torch import", 1).replace(
        "Block(16, 24), Block(24", "Block(16, WIDTH), Block(WIDTH"
    )
    config = config_of(write(text))
    code = built(config, places).code  # type: ignore[attr-defined]
    assert set(code) == {"my_network", "my_sizes"}
    document = replay_document(trial_of(config), RuntimeFlags(), {}, code)
    assert document["code"] == code
    assert "code" not in replay_document(trial_of(config), RuntimeFlags(), {})
    write("import torch\nWIDTH = 12  # the same weights\n", "my_sizes")
    again = built(config, places).code  # type: ignore[attr-defined]
    assert {name for name in code if code[name] != again[name]} == {"my_sizes"}


def test_a_saved_model_is_built_again_and_other_code_is_refused(write: Write, places: Places, tmp_path: Path) -> None:
    config = config_of(write(NETWORK), freeze={"lora": 2, "from": "1"})
    network = built(config, places)
    save_model(tmp_path / "model", network, config=trial_of(config), meta={})  # type: ignore[arg-type]
    images = torch.rand(2, 3, 64, 64)
    loaded = load_model(tmp_path / "model").network
    assert all(torch.equal(a, b) for a, b in zip(loaded(images), network.eval()(images), strict=True))  # type: ignore[attr-defined]
    assert loaded.document is not None
    assert loaded.document["sources"] == {"my_network": NETWORK}
    write(NETWORK + "\n# another text\n")
    with pytest.raises(BadInput, match=r"my_network is not the code .* topology\.sources"):
        load_model(tmp_path / "model")


def test_weights_come_from_a_file_whole(write: Write, places: Places) -> None:
    backbone = write(NETWORK)
    state = {
        name: torch.full_like(tensor, 0.2)
        for name, tensor in sys.modules.get("my_network", __import__("my_network")).build().state_dict().items()
    }
    places.data_dir.mkdir()
    save_file(state, places.data_dir / "w.safetensors")
    network = built(config_of(backbone, weights="w.safetensors", batch_norm="frozen"), places)
    assert torch.equal(network.parts["1"].conv.weight, state["1.conv.weight"])  # type: ignore[attr-defined]
    assert network.says[0] == f"w.safetensors: {len(state)} tensors loaded"  # type: ignore[attr-defined]
    save_file({name: tensor for name, tensor in state.items() if name != "2.mix.bias"}, places.data_dir / "w.safetensors")
    with pytest.raises(BadInput, match=r"2\.mix\.bias"):
        built(config_of(backbone, weights="w.safetensors", batch_norm="frozen"), places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import no_such_package\ndef build(): ...\n",
            r"it can't be imported on .* \(ModuleNotFoundError: No module named 'no_such_package'\)",
        ),
        ("build = 7\n", "expected a function, build is a int"),
        ("def build(): return 7\n", "expected a torch module or a BuiltBackbone, it gave int"),
        ("def build(): return 1 / 0\n", r"the function failed \(ZeroDivisionError"),
        ("from torch import nn\ndef build(): return nn.Flatten()\n", r"expected maps \(B, C, h, w\)"),
        ("from torch import nn\ndef build(): return nn.Conv2d(3, 4, 3, stride=5)\n", "no whole number of pixels a cell"),
    ],
)
def test_what_is_no_network_is_one_clear_message(text: str, message: str, write: Write, places: Places) -> None:
    with pytest.raises(BadInput, match=message):
        built(config_of(write(text)), places)


def test_a_module_that_is_nowhere_names_the_machine_and_what_to_do(places: Places, write: Write) -> None:
    with pytest.raises(BadInput, match=r"nowhere must lie in the working directory .* PYTHONPATH, on every machine"):
        built(config_of("nowhere:build"), places)
    with pytest.raises(BadInput, match="expected module:FUNCTION"):
        config_of("my-network:build")


def test_a_built_backbone_is_taken_as_it_is_with_its_code(write: Write, places: Places) -> None:
    text = """
from torch import nn
from dpcore.model.built import BuiltBackbone

def build(config):
    parts = {"early": nn.Conv2d(3, 8, 4, stride=4), "late": nn.Conv2d(8, config.input_width_px // 8, 1)}
    return BuiltBackbone(parts=parts, channels=config.input_width_px // 8, stride_px=4)
"""
    network = built(config_of(write(text)), places)
    assert list(network.parts) == ["early", "late", "head"]  # type: ignore[attr-defined, call-overload]
    assert set(network.code) == {"my_network"}  # type: ignore[attr-defined]
