"""Measures what public views disclose, once per split and setting, on PUBLIC people that no attacker was trained on.

No pixel of PRIVATE data is used. Attackers and pose model are trained on PUBLIC images, and every number is a mean over PUBLIC
images under the same split. So the result is public, whatever the private data are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from dpcore.config import AttackSettings, Places, RuntimeFlags, SplitConfig, TrialConfig, digest_of, parse_config
from dpcore.data.catalog import open_dataset
from dpcore.data.folders import cached_folder
from dpcore.data.shards import ShardSet
from dpcore.data.views import META_NAME, VIEW_VERSION
from dpcore.disclosure.evidence import Arithmetic, Evidence, People, gather_evidence
from dpcore.disclosure.quality import Images, psnr_db, ssim
from dpcore.disclosure.sharpener import train_sharpener
from dpcore.durable import read_json, write_json
from dpcore.errors import BadInput, Corrupt
from dpcore.model.network import PoseNetwork, codec_of, weights_digest
from dpcore.pose.pckh import PckhState
from dpcore.privacy.disclosure import Disclosure, Reading
from dpcore.privacy.randomness import Indices, PublicStreams
from dpcore.train.evaluator import predict
from dpcore.train.inputs import device_of
from dpcore.train.sources import ImageInputs
from dpcore.train.stages import public_network

DISCLOSURE_VERSION = 1
"""Increased when the same attack would give other numbers."""
RESULT_FILE = "disclosure.json"
SAMPLES_FILE = "samples.npz"
SAMPLES = 8
TRAINING_BYTES = 48 * 2**20
"""Size limit of each stack of training pictures. 2,000 crops of 64 px take 24 MB. 440 crops of 192 px reach the limit."""


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
class Laboratory:
    """What attacks on different splits share: the people, the pose model and the settings."""

    settings: AttackSettings
    places: Places
    train: People
    test: People
    network: PoseNetwork
    config: TrialConfig
    device: torch.device
    key: str

    @classmethod
    def open(cls, config: TrialConfig, settings: AttackSettings, *, places: Places, runtime: RuntimeFlags) -> Laboratory:
        """Opens the PUBLIC data, and trains the public start that reads poses or takes it from the cache.

        Args:
            config: gives PUBLIC datasets, model, public stage and seed. Its private dataset is not opened.
            settings: settings of the attack.
            places: datasets and caches.
            runtime: how to compute. Its thread count is set for the whole process.

        Raises:
            BadInput: a dataset is missing, or has fewer than two people to test on.
        """
        torch.set_num_threads(runtime.threads)
        public = open_dataset(config.data.public, places)
        validation = open_dataset(config.data.validation, places).as_skeleton(public.skeleton)
        train, test = choose_people(public, validation, settings, PublicStreams(config.seed))
        network = public_network(config, public, places=places, runtime=runtime)
        document = {
            "version": [DISCLOSURE_VERSION, VIEW_VERSION],
            "settings": settings.model_dump(mode="json"),
            "data": [dataset.identity for people in (train, test) for dataset, _ in people.parts],
            "model": weights_digest(network.state_dict()),
            "seed": config.seed,
            "rounding": {"threads": runtime.threads, "device": runtime.device, "torch": torch.__version__},
        }
        device = device_of(runtime)
        return cls(
            settings=settings,
            places=places,
            train=train,
            test=test,
            network=network.to(device),
            config=config,
            device=device,
            key=digest_of(document),
        )

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
        predictions = predict(self.network, inputs, codec_of(self.config.model), skeleton=skeleton).numpy()
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


def choose_people(public: ShardSet, validation: ShardSet, settings: AttackSettings, streams: PublicStreams) -> tuple[People, People]:
    """Divides people into training people for the attackers and test people. No photograph is in both.

    The test people are validation people, at most half of them. They resemble the private people, and the pose model has not
    seen them. Attackers learn from the other half and from the public set. If the validation data are not PUBLIC, both come from
    the public set.

    Raises:
        BadInput: fewer than two people to test on.
    """
    source = validation if validation.manifest.role == "PUBLIC" else public
    count = min(settings.test_images, len(source) // 2)
    if count == 0:
        raise BadInput(f"{source.manifest.name} has {len(source)} people: give at least 2 to measure what a split discloses")
    shuffled = streams.generator("disclosure.people").permutation(len(source)).astype(np.int64)
    tested, rest = np.sort(shuffled[:count]), shuffled[count:]
    height, width = source.manifest.height_px, source.manifest.width_px
    left = max(1, TRAINING_BYTES // (height * width * 3))
    parts: list[tuple[ShardSet, Indices]] = []
    for dataset, rows in [(source, rest)] + ([] if source is public else [(public, np.arange(len(public)))]):
        seen = np.isin(dataset.image_ids[rows], source.image_ids[tested]) | np.isin(
            dataset.content_hashes[rows], source.content_hashes[tested]
        )
        parts.append((dataset, rows[~seen][:left]))
        left -= len(parts[-1][1])
    return People(parts=tuple(parts)), People(parts=((source, tested),))


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
    pictures, originals = _attack(splits, laboratory), laboratory.test.images()
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
        "datasets": [dataset.identity for dataset in datasets],
        "tested_on": tested.name,
        "synthetic": tested.is_synthetic,
    }
    write_json(folder / RESULT_FILE, disclosure.model_dump(mode="json"))
    write_json(folder / META_NAME, meta)
    np.savez(folder / SAMPLES_FILE, allow_pickle=False, **stacks)


def _attack(splits: Sequence[SplitConfig], laboratory: Laboratory) -> Evidence:
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
