"""Streams: who can draw them, that they differ, that their laws are right; Poisson sampling and what is not it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from dpcore.config import RuntimeFlags, parse_config
from dpcore.errors import BadInput, Corrupt, Refused, Unavailable
from dpcore.privacy import randomness
from dpcore.privacy.randomness import (
    ChaChaStream,
    NumpyStream,
    PrivateStreams,
    PublicStreams,
    SweepKey,
    choose_without_replacement,
    generator_name,
    poisson_sample,
)

ALPHA = 1e-6
TAIL_KEY, TAIL_COUNTER = 33, 2497232
"""Where Philox draws a normal of 6.39, found by drawing 1.7e8 of them once."""


def looks_poisson(batches: list[np.ndarray], count: int, sampling_prob: float) -> bool:
    """Inclusion counts against Binomial(T, q), and the variance of the batch size against N q (1 − q), two-sided."""
    steps, spread = len(batches), sampling_prob * (1 - sampling_prob)
    included = np.bincount(np.concatenate(batches), minlength=count)
    per_unit = np.sum((included - steps * sampling_prob) ** 2) / (steps * spread)
    sizes = np.array([len(batch) for batch in batches])
    per_step = np.sum((sizes - count * sampling_prob) ** 2) / (count * spread)
    tails = [
        stats.chi2.sf(per_unit, count),
        stats.chi2.cdf(per_unit, count),
        stats.chi2.sf(per_step, steps),
        stats.chi2.cdf(per_step, steps),
    ]
    return min(tails) > ALPHA


@pytest.mark.parametrize("secure", [False, True])
def test_sampling_is_poisson(secure: bool) -> None:
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="t", secure=secure)
    batches = [poisson_sample(streams.stream("sampling", step), 400, 0.06) for step in range(1500)]
    assert looks_poisson(batches, 400, 0.06)


def test_shuffled_epochs_are_not_taken_for_poisson() -> None:
    generator = np.random.default_rng(1)
    batches = [part for _ in range(90) for part in np.array_split(generator.permutation(400), 16)]
    assert not looks_poisson(batches, 400, 25 / 400)


def test_batches_of_fixed_size_are_not_taken_for_poisson() -> None:
    generator = np.random.default_rng(1)
    batches = [generator.choice(400, 24, replace=False) for _ in range(1500)]
    assert not looks_poisson(batches, 400, 0.06)


def test_another_sampling_probability_is_rejected() -> None:
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="t")
    batches = [poisson_sample(streams.stream("sampling", step), 400, 0.066) for step in range(1500)]
    assert not looks_poisson(batches, 400, 0.06)


def test_poisson_edges() -> None:
    stream = PublicStreams(0).stream("x")
    assert len(poisson_sample(stream, 100, 0.0)) == 0
    assert len(poisson_sample(stream, 0, 0.5)) == 0
    assert poisson_sample(stream, 5, 1.0).tolist() == [0, 1, 2, 3, 4]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadInput, match="sampling_prob"):
            poisson_sample(stream, 5, wrong)


@pytest.mark.parametrize("secure", [False, True])
def test_normals_are_standard_normal(secure: bool) -> None:
    stream = PrivateStreams(key=SweepKey.fresh(), trial_id="t", secure=secure).stream("noise", 0)
    assert stats.kstest(stream.normal(50_001), "norm").pvalue > ALPHA
    uniforms = stream.uniform(50_000)
    assert stats.kstest(uniforms, "uniform").pvalue > ALPHA
    assert uniforms.min() >= 0.0
    assert uniforms.max() < 1.0


@pytest.mark.parametrize("secure", [False, True])
def test_streams_differ_by_each_field_and_repeat_otherwise(secure: bool) -> None:
    key = SweepKey.fresh()
    base = PrivateStreams(key=key, trial_id="t", secure=secure)
    drawn = [
        base.stream("noise", 3),
        base.stream("noise", 4),
        base.stream("sampling", 3),
        PrivateStreams(key=key, trial_id="u", secure=secure).stream("noise", 3),
        PrivateStreams(key=key, trial_id="t", attempt=1, secure=secure).stream("noise", 3),
        PrivateStreams(key=key, trial_id="t", context="c", secure=secure).stream("noise", 3),
        PrivateStreams(key=SweepKey.fresh(), trial_id="t", secure=secure).stream("noise", 3),
        PrivateStreams(key=key, trial_id="tnoise", secure=secure).stream("", 3),
    ]
    values = [tuple(stream.normal(4)) for stream in drawn]
    assert len(set(values)) == len(values)
    assert tuple(base.stream("noise", 3).normal(4)) == values[0]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("byte", [4, 8, 15, 16, 31])
def test_keys_that_differ_only_above_bit_32_give_other_noise(byte: int, secure: bool) -> None:
    other = bytearray(32)
    other[byte] = 1
    drawn = [
        PrivateStreams(key=SweepKey(bytes(secret)), trial_id="t", secure=secure).stream("noise", 0).normal(8)
        for secret in (bytes(32), other)
    ]
    assert not np.any(drawn[0] == drawn[1])


def test_philox_keeps_all_128_bits_of_its_key() -> None:
    words = PrivateStreams(key=SweepKey(bytes(32)), trial_id="t").stream("noise", 0)._generator.bit_generator.state["state"]["key"]
    assert all(int(word) >> 32 for word in words)
    # and numpy takes all of them: a generator that kept 32 or 64 bits would repeat here
    low, high = (NumpyStream(np.random.Generator(np.random.Philox(key=1 + (1 << bit)))) for bit in (64, 127))
    assert not np.any(low.normal(8) == high.normal(8))


def test_chacha_is_keyed_with_all_256_bits_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: list[bytes] = []

    def listening(key: bytes) -> ChaChaStream:
        keys.append(key)
        return ChaChaStream(key)

    monkeypatch.setattr(randomness, "ChaChaStream", listening)
    for step in range(8):
        PrivateStreams(key=SweepKey(bytes(32)), trial_id="t", secure=True).stream("noise", step)
    assert {len(key) for key in keys} == {32}
    assert all(len({key[place] for key in keys}) > 1 for place in range(32))


@pytest.mark.parametrize("method", ["dpsgd", "feature_projected"])
def test_a_private_step_draws_nothing_from_torch(method: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise AssertionError("torch was asked for random numbers")

    generator = torch.Generator().manual_seed(0)
    records, views = torch.randn(12, 6, generator=generator), torch.randn(12, 6, generator=generator)
    mechanism = toy.mechanism(toy.config(method), toy.source(records, views))
    for name in ("Generator", "rand", "randn", "randint", "randperm", "normal", "bernoulli", "rand_like", "randn_like", "multinomial"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("normal_", "uniform_", "bernoulli_", "random_"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    before = torch.get_rng_state()
    mechanism.direction(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_normals_of_the_fast_stream_reach_beyond_six_standard_deviations() -> None:
    # float32 normals of torch end at 5.77 wherever one looks
    generator = np.random.Generator(np.random.Philox(key=TAIL_KEY, counter=TAIL_COUNTER))
    assert np.abs(NumpyStream(generator).normal(4096)).max() > 6.0


def test_normals_of_the_secure_stream_reach_beyond_eight_standard_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChaChaStream, "_integers", lambda self, count: np.zeros(count, dtype=np.uint64))
    assert 8.5 < ChaChaStream(bytes(32)).normal(1)[0] < 8.6


def test_chacha_stream_is_the_published_key_stream() -> None:
    # RFC 8439 appendix A.1, test vector 1: key 0, nonce 0, counter 0
    words = np.frombuffer(bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28"), dtype="<u8")
    assert ChaChaStream(bytes(32)).uniform(2).tolist() == [int(word >> np.uint64(11)) / 2**53 for word in words]


def test_secure_draws_do_not_depend_on_how_they_are_asked_for() -> None:
    whole, parts = ChaChaStream(bytes(32)), ChaChaStream(bytes(32))
    assert np.array_equal(whole.uniform(10), np.concatenate([parts.uniform(3), parts.uniform(7)]))


def test_public_streams_follow_the_seed_and_nothing_else() -> None:
    first, again, other = PublicStreams(7), PublicStreams(7), PublicStreams(8)
    assert np.array_equal(first.generator("batch", 2).random(4), again.stream("batch", 2).uniform(4))
    assert not np.array_equal(first.generator("batch", 2).random(4), other.generator("batch", 2).random(4))
    assert not np.array_equal(first.generator("batch", 2).random(4), first.generator("batch", 3).random(4))
    assert first.torch_generator("init").initial_seed() == again.torch_generator("init").initial_seed()
    assert first.torch_generator("init").initial_seed() != first.torch_generator("other").initial_seed()


def test_choice_is_never_clamped() -> None:
    generator = PublicStreams(0).generator("x")
    assert sorted(choose_without_replacement(generator, 5, 5, what="n").tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(BadInput, match="n: 6 wanted but only 5"):
        choose_without_replacement(generator, 5, 6, what="n")


def test_key_shows_its_id_and_never_its_secret() -> None:
    key = SweepKey.fresh()
    for text in (repr(key), str(key), f"{key}", repr([key]), repr(PrivateStreams(key=key, trial_id="t"))):
        assert key.secret.hex() not in text
        assert repr(key.secret) not in text
        assert key.key_id() in text
    assert pickle.loads(pickle.dumps(key)) == key


def test_key_file_is_new_private_and_read_back(tmp_path: Path) -> None:
    key, path = SweepKey.fresh(), tmp_path / "sweep.key"
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SweepKey.load(path) == key
    with pytest.raises(Refused, match="never overwritten"):
        SweepKey.fresh().save(path)
    assert SweepKey.load(path) == key


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o700])
def test_key_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "sweep.key"
    SweepKey.fresh().save(path)
    path.chmod(mode)
    with pytest.raises(Refused, match="chmod 600"):
        SweepKey.load(path)


def test_missing_and_broken_key_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="DPSWEEP_KEY_FILE"):
        SweepKey.load(tmp_path / "none")
    path = tmp_path / "sweep.key"
    for text in (b"", b"zz" * 32, b"ab" * 31, b"\xff" * 64):
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(Corrupt, match="64 hex digits"):
            SweepKey.load(path)
    with pytest.raises(BadInput, match="32 bytes"):
        SweepKey(b"short")


def test_a_gpu_is_seeded_with_64_bits_of_its_own_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    class Generator:
        """Stands for that of a GPU, which this machine need not have."""

        def __init__(self, device: str) -> None:
            assert device == "cuda"

        def manual_seed(self, seed: int) -> None:
            seeds.append(seed)

    monkeypatch.setattr(torch, "Generator", Generator)
    secret, streams = SweepKey.fresh(), []
    for attempt in (0, 1):
        streams.append(PrivateStreams(key=secret, trial_id="t", attempt=attempt, noise_device="cuda"))
        for step in range(20):
            streams[-1].noise(step)
    assert len(set(seeds)) == 40
    assert len({seed >> 32 for seed in seeds}) > 35
    assert len({seed % 2**32 for seed in seeds}) > 35
    again = list(seeds)
    streams[0].noise(3)
    assert seeds[-1] == again[3]
    monkeypatch.setattr(torch, "randn", lambda count, **named: (count, named["device"], named["dtype"]))
    assert streams[0].noise(0).normal(5) == (5, "cuda", torch.float64)


def test_noise_comes_from_the_cpu_unless_a_gpu_is_named_and_never_from_torch_there() -> None:
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="t")
    np.testing.assert_array_equal(streams.noise(2).normal(9), streams.stream("noise", 2).normal(9))
    with pytest.raises(BadInput, match="32 bits of its seed"):
        PrivateStreams(key=SweepKey.fresh(), trial_id="t", noise_device="cpu").noise(0)


def test_a_claim_names_the_generator_of_the_noise() -> None:
    assert generator_name(RuntimeFlags()) == "Philox 4x64-10, 128-bit key"
    assert generator_name(RuntimeFlags(secure_rng=True)) == "ChaCha20, 256-bit key"
    assert generator_name(RuntimeFlags(device="cuda", noise_on_device=True)).endswith("GPU's Philox 4x32-10, seeded each step with 64 bits")


@pytest.mark.parametrize("flags", [{}, {"device": "cuda", "secure_rng": True}])
def test_noise_of_a_device_needs_one_and_is_no_secure_generator(flags: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="noise_on_device needs device cuda without secure_rng"):
        parse_config(RuntimeFlags, {"noise_on_device": True, **flags})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_normals_of_a_gpu_are_standard_normal_reach_beyond_six_and_repeat() -> None:
    streams = PrivateStreams(key=SweepKey.fresh(), trial_id="t", noise_device="cuda")
    stream = streams.noise(0)
    first = torch.as_tensor(stream.normal(10**6))
    assert stats.kstest(first.cpu().numpy(), "norm").pvalue > ALPHA
    assert torch.equal(torch.as_tensor(streams.noise(0).normal(10**6)), first)
    # of 4.3e9 normals 8.5 lie beyond
    assert max(float(torch.as_tensor(stream.normal(2**28)).abs().max()) for _ in range(16)) > 6.0
