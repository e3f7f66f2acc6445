"""Measures what a sweep's views disclose in a process beside the first trials, on the driver's own node.

It begins when the first trial has ended. That is the public start, which every other trial waits for and which trains on two cores. It is a
task of Ray that asks for no core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpcore import errors
from dpcore.config import parse_config
from dpcore.errors import DpsweepError, Unavailable
from sweeps.records.publication import REPORT
from sweeps.records.references import public_start_config
from sweeps.records.spec import SweepSpec
from sweeps.report.disclosure import PolicyDisclosure, attack_settings, measure_policy
from sweeps.report.disclosure_sheet import DisclosureSheet, save_disclosure_sheet

UNREAD = "the attacker reads no pose off the originals either, so only likeness was measured"


class Disclosing:
    """A measurement that is due."""

    def __init__(self, spec: SweepSpec, say: Callable[[str], None]) -> None:
        """Checks whether it can be made.

        Raises:
            BadInput: there are too few PUBLIC people.
        """
        check_people(spec)
        self._spec = spec
        self._names = ", ".join(split.name for split in spec.space.splits_in_use)
        self._say, self._began = say, time.monotonic()
        self._task: Any = None

    def begin(self) -> None:
        """Begins it, once. Needs an open `ray_session`."""
        if self._task is not None:
            return
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._began = time.monotonic()
        self._say(f"dpsweep: measuring what public views disclose ({self._names}), on PUBLIC people, beside the first trials")
        here: Any = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        measuring: Any = ray.remote(num_cpus=0, scheduling_strategy=here)(measured_beside)
        self._task = measuring.remote(self._spec.model_dump_json())

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self._task is not None and not self.is_ready

    @property
    def is_ready(self) -> bool:
        """Whether `result` does not wait."""
        import ray

        return self._task is not None and bool(ray.wait([self._task], timeout=0)[0])

    def result(self) -> tuple[PolicyDisclosure, DisclosureSheet]:
        """What the views disclose, and the sheet of pictures. Begins it where nobody has, and waits for it.

        Raises:
            DpsweepError: what stopped the measurement. Unavailable: its process died.
        """
        import ray

        self.begin()
        try:
            found = ray.get(self._task)
        except ray.exceptions.RayError as error:
            raise Unavailable(
                f"the process that measured what public views disclose ({self._names}) ended ({type(error).__name__})"
            ) from error
        if "error" in found:
            raise getattr(errors, found["kind"])(found["error"])
        policy = parse_config(PolicyDisclosure, found["policy"])
        disclosed = "; ".join(f"{name} {one.disclosure:.2f}" for name, one in policy.by_name.items() if one.disclosure is not None)
        scale = "0 a blind guess, 1 the original"
        told = f"the public views disclose ({scale}): {disclosed}" if disclosed else f"what public views disclose: {UNREAD}"
        self._say(f"dpsweep: {told} ({time.monotonic() - self._began:.0f} s)")
        for line in found["said"]:
            self._say(line)
        return policy, DisclosureSheet(path=Path(found["sheet"]), mlflow_only=found["mlflow_only"])


def disclosing_of(spec: SweepSpec, say: Callable[[str], None]) -> Disclosing | None:
    """The measurement of a sweep; None where nothing is to be measured."""
    return None if attack_settings(spec) is None else Disclosing(spec, say)


def check_people(spec: SweepSpec) -> None:
    """Finds out before the first trial whether there are people to attack.

    Raises:
        BadInput: too few, or a dataset is missing.
    """
    from dpcore.data.catalog import open_dataset
    from dpcore.disclosure.evidence import choose_people
    from dpcore.privacy.randomness import PublicStreams

    config, settings = public_start_config(spec.space, seed=spec.seed), attack_settings(spec)
    if settings is not None:
        public, validation = open_dataset(config.data.public, spec.places), open_dataset(config.data.validation, spec.places)
        choose_people(public, validation, settings, PublicStreams(config.seed))


def measured_beside(document: str) -> dict[str, Any]:
    """`measure_policy` and its sheet as a JSON document: what a worker gives back. An error of ours is an answer too."""
    spec = SweepSpec.model_validate_json(document)
    said: list[str] = []
    try:
        found = measure_policy(spec, said.append)
        if found is None:
            raise RuntimeError("nothing is to be measured")
        sheet = save_disclosure_sheet(found.measured, shown=spec.sweep_dir / REPORT, sealed=spec.state_dir / "sealed")
    except DpsweepError as error:
        return {"error": str(error), "kind": type(error).__name__}
    policy = found.policy.model_dump(mode="json")
    return {"policy": policy, "sheet": str(sheet.path), "mlflow_only": sheet.mlflow_only, "said": said}
