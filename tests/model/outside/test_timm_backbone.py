"""Networks of timm as backbones: built, loaded, made safe, saved and built again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dpcore.config import ModelConfig, Places, TrialConfig, parse_config
from dpcore.errors import BadInput
from dpcore.model.freezing import trained_names
from dpcore.model.network import _drawn_from, build_network, codec_of, weights_digest
from dpcore.model.outside.timm_backbone import build_timm
from dpcore.model.outside.timm_import import import_timm
from dpcore.model.safety.safe_pass import difference
from dpcore.privacy.per_example import Batch, GradientEngine
from dpcore.privacy.row_check import row_errors
from dpcore.train.evaluator import loss_of
from dpcore.train.saved import load_model, save_model

FAMILIES = ["tiny_vit_5m_224", "resnet18", "convnext_atto", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
SMALL = "mobilenetv3_small_050"


def config_of(name: str, **changes: object) -> ModelConfig:
    values = {"backbone": f"timm:{name}", "head": "flat", "freeze": "none", "input_height_px": 64, "input_width_px": 64, **changes}
    return parse_config(ModelConfig, values)


def built(config: ModelConfig, places: Places, seed: int = 3) -> object:
    return build_network(config, places, generator=torch.Generator().manual_seed(seed))


def images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(5)) * 2 - 1


def trained_state(name: str, **settings: object) -> dict[str, Tensor]:
    """Of the whole network of timm, classifier included, with statistics as training leaves them: none of them 0 or 1."""
    generator = torch.Generator().manual_seed(11)
    whole = import_timm().create_model(name, **settings)
    state = {key: tensor.clone() for key, tensor in whole.state_dict().items()}
    for key, tensor in state.items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif key.endswith(("running_mean", "bn1.weight", "bn2.weight", "bn.weight")):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
        elif key.endswith(("attention_biases", "cls_token")):
            tensor.normal_(generator=generator)
    return state


def timms_maps(name: str, state: dict[str, Tensor], given: Tensor, **settings: object) -> Tensor:
    """What timm's own network gives for images in [-1, 1], in its own scale."""
    timm = import_timm()
    features = timm.create_model(name, features_only=True, out_indices=(-1,), **settings)
    cfg = timm.get_pretrained_cfg(name)
    whole = timm.create_model(name, **settings)
    whole.load_state_dict(state)
    own = whole.eval().forward_intermediates
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (cfg.mean, cfg.std))
    with torch.no_grad():
        maps: Tensor = own(((given + 1) / 2 - mean) / std, intermediates_only=True)[features.feature_info.out_indices[-1]]
    return maps


@pytest.mark.parametrize(
    ("name", "batch_norm"),
    [
        *((name, "fold") for name in FAMILIES),
        ("mobilenetv3_small_050", "frozen"),
        *(pytest.param(name, "frozen", marks=pytest.mark.slow) for name in ("resnet18", "tiny_vit_5m_224")),
    ],
)
def test_maps_are_those_of_timms_own_network(name: str, batch_norm: str, places: Places) -> None:
    settings = {"img_size": (64, 64)} if name.startswith("vit") else {}
    state = trained_state(name, **settings)
    places.data_dir.mkdir()
    save_file(state, places.data_dir / "own.safetensors")
    network = built(config_of(name, weights="own.safetensors", batch_norm=batch_norm), places)
    split = network.split("backbone")  # type: ignore[attr-defined]
    found = split.stem(images())
    assert difference([found], [timms_maps(name, state, images(), **settings)]) < 1e-5
    assert any("tensors loaded" in line for line in network.says)  # type: ignore[attr-defined]


def test_ft_of_the_papers_network_trains_its_number_of_parameters(places: Places) -> None:
    """Sivangi et al.: about 3.17 of 5.8 million: stage 4, all norms, the head."""
    network = built(config_of("tiny_vit_5m_224", input_height_px=256, input_width_px=192), places)
    sizes = {name: p.numel() for name, p in network.parts.named_parameters()}  # type: ignore[attr-defined]

    def trained(freeze: object) -> int:
        split = network.split(freeze)  # type: ignore[attr-defined]
        return sum(p.numel() for p in split.tail.parameters() if p.requires_grad)

    assert sum(sizes.values()) == 5_760_356
    assert {freeze: trained(freeze) for freeze in ("ft", "full_ft", "norms", "biases", "backbone")} == {
        "ft": 3_172_324,
        "full_ft": 5_760_356,
        "norms": 701_584,
        "biases": 719_504,
        "backbone": 694_160,
    }
    assert len(network.split("ft").stem) == 3  # type: ignore[attr-defined, arg-type]  # its scale, the patches and the first stage


@pytest.mark.parametrize("name", [SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name != SMALL)])
@pytest.mark.parametrize(
    "batch_norm", ["fold", pytest.param("frozen", marks=pytest.mark.slow), pytest.param("group_norm", marks=pytest.mark.slow)]
)
def test_rows_equal_single_examples(name: str, batch_norm: str, places: Places) -> None:
    config = config_of(name, batch_norm=batch_norm)
    split = built(config, places).split("ft")  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        inputs = split.stem(images(3))
    batch = Batch(inputs, 64 * torch.rand(3, 16, 2, generator=generator), torch.rand(3, 16, generator=generator) > 0.2)
    assert row_errors(GradientEngine(split.tail, loss_of(codec_of(config))), batch).largest < 1e-4


def test_equal_seeds_draw_equal_weights(places: Places) -> None:
    first, again, other = (weights_digest(built(config_of(SMALL), places, seed).state_dict()) for seed in (3, 3, 4))  # type: ignore[attr-defined]
    assert first == again
    assert first != other


def test_torchs_own_generator_is_where_it_was_after_a_backbone_drew_from_it() -> None:
    generator, before = torch.Generator().manual_seed(9), torch.random.get_rng_state()
    with _drawn_from(generator):
        drawn = torch.rand(3)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(drawn, torch.rand(3, generator=generator))


@pytest.mark.parametrize("batch_norm", ["fold", "frozen", "group_norm"])
def test_a_saved_model_is_built_again_without_its_weights_file(batch_norm: str, places: Places, tmp_path: Path) -> None:
    places.data_dir.mkdir()
    file = places.data_dir / "own.safetensors"
    save_file(trained_state(SMALL), file)
    model = config_of(SMALL, weights="own.safetensors", batch_norm=batch_norm, freeze={"lora": 2, "from": "blocks.4"})
    network = built(model, places)
    data = {"private": "a", "public": "b", "validation": "c", "nominal_examples": 9}
    values = {
        "method": "public_only",
        "data": data,
        "model": model.model_dump(mode="json"),
        "stages": {"private": {"steps": 1, "expected_batch_size": 1}},
    }
    save_model(tmp_path / "model", network, config=parse_config(TrialConfig, values), meta={})  # type: ignore[arg-type]
    file.unlink()
    loaded = load_model(tmp_path / "model").network
    logits = zip(loaded(images()), network.eval()(images()), strict=True)  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in logits)


def test_timms_own_loader_fills_the_network_and_says_what_it_leaves_out(places: Places, tmp_path: Path) -> None:
    """The path that reads from the hub, with a file in the hub's place."""
    state = trained_state(SMALL)
    save_file(state, tmp_path / "model.safetensors")
    config = config_of(SMALL, weights="timm")
    backbone = build_timm(config, places, None, overlay={"file": str(tmp_path / "model.safetensors")})
    maps = images()
    for part in backbone.parts.values():
        maps = part.eval()(maps)
    assert difference([maps.detach()], [timms_maps(SMALL, state, images())]) < 1e-5
    assert backbone.says[1].startswith(f"timm's own weights of {SMALL}: 4 tensors left out (classifier.bias")


def test_without_a_way_to_the_hub_the_message_says_what_to_do(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(places.cache_dir))
    with pytest.raises(BadInput, match=r"timm could not load its weights .* hub's cache on every machine"):
        build_timm(config_of(SMALL, weights="timm"), places, None)


def test_maps_of_several_stages_stand_on_the_finest_grid(places: Places) -> None:
    network = built(config_of("resnet18", feature_layers=("layer2", "layer4")), places)
    split = network.split("backbone")  # type: ignore[attr-defined]
    assert split.stem(images()).shape == (2, 128 + 512, 8, 8)


def test_wrong_names_are_answered_with_the_right_ones(places: Places) -> None:
    with pytest.raises(BadInput, match=r"did you mean .*tiny_vit_5m_224"):
        built(config_of("tiny_vit_5m"), places)
    with pytest.raises(BadInput, match=r"no maps at layer9; it has .*layer4"):
        built(config_of("resnet18", feature_layers=("layer9",)), places)
    with pytest.raises(BadInput, match=r"name a network of timm"):
        config_of("")


def test_a_policy_that_means_nothing_for_folded_norms_says_so(places: Places) -> None:
    network = built(config_of(SMALL), places)
    with pytest.raises(BadInput, match=r"no norm of its own .*model.batch_norm: frozen"):
        network.split("norms")  # type: ignore[attr-defined]
    assert trained_names(dict(built(config_of(SMALL, batch_norm="frozen"), places).parts.items()), "gains")  # type: ignore[attr-defined]


def test_timm_imports_where_torchvisions_operators_do_not_load() -> None:
    """In a process of its own, as a worker imports it."""
    code = "from dpcore.model.outside.timm_import import import_timm; print(import_timm().is_model('tiny_vit_5m_224'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr[-2000:]
