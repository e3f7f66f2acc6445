"""How a trial is executed: what changes speed or rounding, never the trained function."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dpcore.config.parsing import Part

Precision = Literal["fp32", "bf16"]


class RuntimeFlags(Part):
    """What changes speed or rounding, never the trained function in exact arithmetic. Stored beside every result;
    a replay restores it and refuses what it cannot match."""

    threads: int = Field(default=1, ge=1)
    physical_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="auto: 64 on a CPU, on a GPU from the memory that a step of one and of two examples takes"
    )
    report_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = Field(default="fp32", description="of forward and backward in the steps; what is clipped and summed is float32")
    secure_rng: bool = Field(default=False, description="private streams from ChaCha20 instead of Philox")
    data_on_device: bool = Field(default=False, description="examples lie whole in the GPU's memory, and are augmented there")
    noise_on_device: bool = Field(
        default=False, description="noise from the GPU's counter generator, seeded each step with 64 secret bits; sampling stays with numpy"
    )
    largest_rank: int | None = Field(
        default=None, ge=1, description="of a sweep: for it a node fits the subspace of the start, and trials take their leading directions"
    )

    @model_validator(mode="after")
    def _data_on_a_device(self) -> Self:
        if self.data_on_device and self.device != "cuda":
            raise ValueError(f"data_on_device needs device cuda, given {self.device}: leave it out")
        return self

    @model_validator(mode="after")
    def _noise_where_its_generator_is(self) -> Self:
        if self.noise_on_device and (self.device != "cuda" or self.secure_rng):
            raise ValueError(
                f"noise_on_device needs device cuda without secure_rng, given device {self.device} and secure_rng {self.secure_rng}: "
                "torch's generator on a CPU keeps 32 bits of its seed; leave noise_on_device out"
            )
        return self
