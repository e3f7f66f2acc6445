"""Measures what public views disclose, once per split and setting, on PUBLIC people that no attacker was trained on.

No pixel of PRIVATE data is used. Attackers and pose model are trained on PUBLIC images, and every number is a mean over PUBLIC
images under the same split. So the result is public, whatever the private data are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dpcore.config import AttackSettings, EvaluationConfig, Places, RuntimeFlags, SplitConfig, TrialConfig, digest_of, parse_config
from dpcore.data.catalog import open_dataset
from dpcore.data.folders import cached_folder
from dpcore.data.views import META_NAME, VIEW_VERSION
from dpcore.disclosure.evidence import Arithmetic, Evidence, People, choose_people, gather_evidence
from dpcore.disclosure.quality import Images, psnr_db, ssim
from dpcore.disclosure.sharpener import train_sharpener
from dpcore.durable import read_json, write_json
from dpcore.errors import Corrupt
from dpcore.inference.reading import PoseReading
from dpcore.model.network import PoseNetwork, weights_digest
from dpcore.pose.pckh import PckhState
from dpcore.privacy.disclosure import Disclosure, Reading
from dpcore.privacy.randomness import Indices, PublicStreams
from dpcore.train.inputs import device_of
from dpcore.train.predictions import predict
from dpcore.train.sources import ImageInputs
from dpcore.train.stages import has_public_network, public_network
from dpcore.train.upright import as_read

DISCLOSURE_VERSION = 2
"""Increased when the same attack would give other numbers."""
RESULT_FILE = "disclosure.json"
SAMPLES_FILE = "samples.npz"
SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Samples:
    """A few test people for a picture sheet: stacks (S, H, W, 3).

    Attributes:
        originals, published: the images and their public views.
        restored: reconstructions of the best attacker.
        synthetic: whether the pictures show no real people.
        dataset: name of the dataset.
    """

    originals: Images
    published: Images
    restored: Images
    synthetic: bool
    dataset: str


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measured split (or several, held by one attacker) and the folder of its pictures."""

    disclosure: Disclosure
    folder: Path

    def samples(self) -> Samples:
        """The pictures.

        Raises:
            Corrupt: the pictures cannot be read.
        """
        try:
            with np.load(self.folder / SAMPLES_FILE, allow_pickle=False) as stored:
                stacks = {name: stored[name] for name in ("originals", "published", "restored")}
        except (OSError, ValueError, KeyError) as error:
            raise Corrupt(f"{self.folder / SAMPLES_FILE} cannot be read ({error}); remove {self.folder} and run again") from None
        meta = read_json(self.folder / META_NAME)
        return Samples(**stacks, synthetic=bool(meta["synthetic"]), dataset=str(meta["tested_on"]))


@dataclass(frozen=True, kw_only=True)
class Attackers:
    """What attacks on different splits share: the people and the settings. No pose model: that only reads their pictures."""

    settings: AttackSettings
    places: Places
    train: People
    test: People
    config: TrialConfig
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Laboratory(Attackers):
    """The attackers, and the pose model that reads what they recover.

    Attributes:
        network: the public start.
        key: of everything that a reading depends on, the splits apart.
        attacked: pictures that were made before the network was there, by the names of their splits.
    """

    network: PoseNetwork
    key: str
    attacked: Mapping[tuple[str, ...], Evidence] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        config: TrialConfig,
        settings: AttackSettings,
        *,
        places: Places,
        runtime: RuntimeFlags,
        wanted: Sequence[Sequence[SplitConfig]] = (),
    ) -> Laboratory:
        """Opens the PUBLIC data, and trains the public start that reads poses or takes it from the cache.

        Args:
            config: gives PUBLIC datasets, model, public stage and seed. Its private dataset is not opened.
            settings: settings of the attack.
            places: datasets and caches.
            runtime: how to compute. Its thread count is set for the whole process.
            wanted: splits that are going to be measured. They are attacked first where the public start is not there yet: another
                process can train it meanwhile.

        Raises:
            BadInput: a dataset is missing, or has fewer than two people to test on.
        """
        torch.set_num_threads(runtime.threads)
        public = as_read(open_dataset(config.data.public, places), config, places)
        validation = as_read(open_dataset(config.data.validation, places).as_skeleton(public.skeleton), config, places)
        train, test = choose_people(public, validation, settings, PublicStreams(config.seed))
        device = device_of(runtime)
        attackers = Attackers(settings=settings, places=places, train=train, test=test, config=config, device=device)
        is_there = not wanted or has_public_network(config, public, places=places, runtime=runtime)
        attacked = {} if is_there else {_names(splits): _attack(splits, attackers) for splits in wanted}
        network = public_network(config, public, places=places, runtime=runtime)
        document = {
            "version": [DISCLOSURE_VERSION, VIEW_VERSION],
            "settings": settings.model_dump(mode="json"),
            "data": [dataset.identity for people in (train, test) for dataset, _ in people.parts],
            "model": weights_digest(network.state_dict()),
            "seed": config.seed,
            "rounding": {"threads": runtime.threads, "device": runtime.device, "torch": torch.__version__},
        }
        return cls(**vars(attackers), network=network.to(device), key=digest_of(document), attacked=attacked)

    @cached_property
    def pckh_original(self) -> float:
        """PCKh@0.5 of the public model on the originals."""
        return self.pckh(self.test.images())

    @cached_property
    def pckh_blind(self) -> float:
        """PCKh@0.5 of the public model on the mean image of the training people."""
        mean = np.rint(self.train.images().mean(axis=0, dtype=np.float64)).astype(np.uint8)
        return self.pckh(np.broadcast_to(mean, (len(self.test), *mean.shape)))

    def pckh(self, pictures: Images) -> float:
        """PCKh@0.5 of the public model on pictures (N, H, W, 3) of the test people."""
        inputs, skeleton = ImageInputs(_Stack(pictures), None, self.device), self.test.parts[0][0].skeleton
        predictions = predict(self.network, [inputs], PoseReading.of(self.config.model, EvaluationConfig(), skeleton))[0].numpy()
        state, done = PckhState.empty(skeleton=skeleton), 0
        for dataset, rows in self.test.parts:
            truth = (dataset.keypoints[rows], dataset.visible[rows], dataset.head_size_px[rows])
            state += PckhState.of(predictions[done : done + len(rows)], *truth, skeleton=skeleton)
            done += len(rows)
        return state.mean(0.5)


@dataclass(frozen=True)
class _Stack:
    """Pictures as `Crops`."""

    pictures: Images

    def __len__(self) -> int:
        return len(self.pictures)

    def images(self, indices: Indices) -> Images:
        return self.pictures[indices]


def measure_disclosure(splits: Sequence[SplitConfig], laboratory: Laboratory) -> Measured:
    """Measures what an attacker with the views under all `splits` recovers. Later calls read the cache.

    Raises:
        Corrupt: the stored result cannot be read.
    """
    document = {"laboratory": laboratory.key, "splits": [split.model_dump(mode="json") for split in splits]}
    folder = laboratory.places.cache_dir / "disclosure" / digest_of(document)
    cached_folder(folder, lambda temporary: _measure_into(temporary, splits, laboratory), private=False)
    try:
        values = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Corrupt(f"{folder / RESULT_FILE} cannot be read ({error}); remove {folder} and run again") from None
    return Measured(disclosure=parse_config(Disclosure, values), folder=folder)


def _measure_into(folder: Path, splits: Sequence[SplitConfig], laboratory: Laboratory) -> None:
    datasets = list(dict.fromkeys(dataset for people in (laboratory.train, laboratory.test) for dataset, _ in people.parts))
    tested = laboratory.test.parts[0][0].manifest
    pictures = laboratory.attacked.get(_names(splits)) or _attack(splits, laboratory)
    originals = laboratory.test.images()
    masks = pictures.hidden
    readings = tuple(
        _read(name, picture, originals, masks, laboratory) for name, picture in zip(pictures.names, pictures.pictures, strict=True)
    )
    disclosure = Disclosure(
        splits=tuple(split.name for split in splits),
        pckh_original=laboratory.pckh_original,
        pckh_blind=laboratory.pckh_blind,
        readings=readings,
        hidden_frac=float(masks.mean()),
        trained_on=len(laboratory.train),
        tested_on=len(laboratory.test),
        datasets=tuple(dataset.manifest.name for dataset in datasets),
    )
    shown = np.linspace(0, len(originals) - 1, min(SAMPLES, len(originals))).astype(np.int64)
    stacks = {
        "originals": originals[shown],
        "published": pictures.pictures[0][shown],
        "restored": pictures.pictures[readings.index(disclosure.best)][shown],
    }
    meta = {
        "datasets": [dataset.source.identity for dataset in datasets],
        "tested_on": tested.name,
        "synthetic": tested.is_synthetic,
    }
    write_json(folder / RESULT_FILE, disclosure.model_dump(mode="json"))
    write_json(folder / META_NAME, meta)
    np.savez(folder / SAMPLES_FILE, allow_pickle=False, **stacks)


def _names(splits: Sequence[SplitConfig]) -> tuple[str, ...]:
    return tuple(split.name for split in splits)


def _attack(splits: Sequence[SplitConfig], laboratory: Attackers) -> Evidence:
    """The test people as each attacker reconstructs them. The pictures of the learned attacker come last."""
    attacks = [Arithmetic.fitted(split, laboratory.train, laboratory.places) for split in splits]
    evidence = gather_evidence(laboratory.test, attacks, laboratory.places)
    if laboratory.settings.steps == 0:
        return evidence
    learned = train_sharpener(
        gather_evidence(laboratory.train, attacks, laboratory.places),
        laboratory.train,
        settings=laboratory.settings,
        streams=PublicStreams(laboratory.config.seed),
        device=laboratory.device,
    )
    names = (*evidence.names, f"{'+'.join(split.name for split in splits)} learned")
    return Evidence(names=names, pictures=(*evidence.pictures, learned.pictures(evidence)), hidden=evidence.hidden)


def _read(
    name: str, pictures: Images, originals: Images, masks: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], laboratory: Laboratory
) -> Reading:
    return Reading(
        attacker=name,
        pckh_50=laboratory.pckh(pictures),
        psnr_db=psnr_db(pictures, originals),
        ssim=ssim(pictures, originals),
        hidden_psnr_db=psnr_db(pictures, originals, masks),
        hidden_ssim=ssim(pictures, originals, masks),
    )
