"""Ray, quiet: a cluster of our own or a connection to a running one, and Tune on it."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from dpcore.errors import BadInput, Unavailable
from sweeps.ray_runtime.ray_auth import check_machine, guard_own_ray, knock, show_token
from sweeps.records.spec import SweepSpec
from sweeps.storage.ray_folder import ray_folder, unrecorded_session

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
}
"""Read by Ray at import or at start: no telemetry, no progress tables, no log files of its own, Ctrl-C is ours."""

ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20)}
"""Read by glibc as a worker of a Ray of our own starts: what a training step frees stays in the process. By default each activation of
more than 128 KB to 32 MB may go back to the kernel and come again page by page (benchmarks/README.md has the figures)."""

OBJECT_STORE_BYTES = 128 * 2**20
"""Trials share data through memory-mapped files; Ray's store carries one key and small results."""

START_WITHIN_S = 300.0
"""More than twenty times what a start takes on a loaded machine."""

TRAINABLE = "sweeps.engine.trainable"


@contextlib.contextmanager
def ray_session(spec: SweepSpec) -> Iterator[int]:
    """Ray for the length of a block, with private folders that are removed at its end; gives the number of trials that can run
    at once. The sweep's state is there, and its lock is ours.

    Raises:
        Unavailable: nothing answers at `spec.address`, or no folder is short enough for Ray's sockets.
        BadInput: no machine of our own Ray has what one trial asks for.
    """
    with (
        ray_folder(spec.state_dir, own=spec.address is None) as folder,
        connected(spec.address, preload=modules_to_preload(spec), session=folder.session) as resources,
    ):
        yield _concurrency(spec, resources)


@contextlib.contextmanager
def connected(address: str | None, *, preload: Sequence[str] = (), session: Path | None = None) -> Iterator[dict[str, float]]:
    """A connection to the Ray at an address, or a Ray of our own; gives its resources.

    Args:
        address: of a running Ray; None starts one.
        preload: what the workers of a Ray of our own import as they start.
        session: folder in which a Ray of our own keeps its files; None: a private one that is removed at the end.

    Raises:
        Unavailable: nothing answers there.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    if address is not None:
        _check_address(address)
    import ray

    if ray.is_initialized():
        raise Unavailable("this process is connected to a Ray already; end that session first (ray.shutdown())")
    silence()
    if address is not None:
        show_token()
        with _initialized(address, {}) as resources:
            yield resources
        return
    os.environ.update({name: os.environ.get(name, value) for name, value in ALLOCATION.items()})
    guard_own_ray()
    check_machine()
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    if preload:
        own["_system_config"] = {"preload_python_modules": list(preload)}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(unrecorded_session()) if session is None else session
        yield stack.enter_context(_initialized("local", {**own, "_temp_dir": str(folder)}))


@contextlib.contextmanager
def _initialized(address: str, arguments: dict[str, Any]) -> Iterator[dict[str, float]]:
    """Ray's own processes have ended at the end of the block: nothing writes into its folders any more."""
    import ray

    place = "on this machine" if address == "local" else f"at {address}"
    try:
        with _deadline(START_WITHIN_S, place):
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **arguments)
    except Unavailable:
        ray.shutdown()
        raise
    except Exception as error:  # Ray says so with bare exceptions where its own deadline, 30 s for a node, passes
        busy = f" (load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores; try again when it is less busy)" if _is_busy() else ""
        raise Unavailable(f"Ray does not start {place}: {(str(error).splitlines() or [type(error).__name__])[0]}{busy}") from error
    try:
        yield ray.cluster_resources()  # type: ignore[no-untyped-call]
    finally:
        ray.shutdown(wait_for_processes=True)


@contextlib.contextmanager
def _deadline(seconds: float, place: str) -> Iterator[None]:
    """Ends a start of Ray that takes too long: not each of its waits has an end of its own. In the main thread alone.

    Raises:
        Unavailable: the seconds are over.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(signum: int, frame: FrameType | None) -> NoReturn:
        raise Unavailable(
            f"Ray has not started {place} within {seconds:.0f} s; load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores. See "
            "`dpsweep doctor`, and whether the machine's addresses reach each other (RAY_NODE_IP_ADDRESS names one)"
        )

    # Not SIGINT, which a shell's background jobs ignore.
    before = signal.signal(signal.SIGUSR2, end)
    timer = threading.Timer(seconds, _thread.interrupt_main, (signal.SIGUSR2,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR2, before)


def _is_busy() -> bool:
    return os.getloadavg()[0] > 2 * (os.cpu_count() or 1)


def modules_to_preload(spec: SweepSpec) -> tuple[str, ...]:
    """What the workers of a Ray of our own import as they start, while the driver still prepares: the five seconds of torch and its
    libraries are over when the first trial is handed out.

    Ray starts a worker for each core beforehand. Where fewer than half of them will run trials nothing is imported, as each would
    hold 300 MB; nor on GPUs, whose devices must be known before CUDA is looked at.
    """
    cores = len(os.sched_getaffinity(0))
    trials = spec.max_concurrent or cores / spec.cpus_per_trial
    if spec.address is not None or spec.gpus_per_trial or 2 * trials < cores:
        return ()
    return TRAINABLE, spec.trial_function.partition(":")[0]


def _concurrency(spec: SweepSpec, resources: dict[str, float]) -> int:
    fits = [int(resources.get(kind, 0) / wanted) for kind, wanted in (("CPU", spec.cpus_per_trial), ("GPU", spec.gpus_per_trial)) if wanted]
    if spec.address is None and min(fits) < 1:
        raise BadInput(
            f"one trial asks for {spec.cpus_per_trial:g} CPUs and {spec.gpus_per_trial:g} GPUs, this machine has "
            f"{resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; lower --cpus-per-trial or --gpus-per-trial"
        )
    return spec.max_concurrent or max(1, min(fits))


def _check_address(address: str) -> None:
    """Knocks first: Ray's own connection waits a minute, and then ends the process."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadInput(f"--address {address}: expected auto or HOST:PORT")
    knock(host, int(port), remedy="start one with `ray start --head`, or leave --address out")


def silence() -> None:
    """Ray's loggers speak of its own restore and of failures that we report ourselves."""
    for name in ("ray", "ray.tune", "ray.air", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
