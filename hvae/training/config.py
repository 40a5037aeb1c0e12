"""The configuration of a run: one section beside each owner, put together here."""

from typing import Any, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from hvae.data.config import DataConfig
from hvae.models.config import ModelConfig
from hvae.models.recompute import Level
from hvae.section import Section
from hvae.training.refine_config import RefineConfig

Sharding: TypeAlias = Literal["ddp", "fsdp"]


class ObjectiveConfig(Section):
    """What is minimised: -ELBO, with two helps against collapse that fade during the run."""

    beta: float = Field(default=1.0, gt=0.0)
    """Final weight of the KL; 1 is the ELBO."""

    kl_schedule: Literal["linear", "cyclical", "constant"] = "linear"
    """How the weight of the KL gets there: it rises once, again in every cycle, or not at all."""

    kl_warmup_images: int | None = Field(default=None, ge=0)
    """Images over which beta rises linearly from 0 (linear only). Null: 5 % of the run."""

    kl_cycles: int = Field(default=4, ge=1)
    """Equal parts of the run in each of which beta rises from 0 anew (cyclical only)."""

    kl_cycle_rise: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of a cycle over which beta rises; it then stays (cyclical only)."""

    free_bits: float = Field(default=0.02, ge=0.0)
    """KL in nats per data dimension, over all groups together, that costs nothing at the start."""

    free_bits_images: int | None = Field(default=None, ge=0)
    """Images after which free bits have cooled linearly to 0. Null: half of the run."""

    kl_share: bool = False
    """Weigh the KL of each group by its share of the total (Luhman & Luhman, arXiv 2210.10205):
    for samples, at the cost of bits/dim."""

    spectral: float = Field(default=0.0, ge=0.0)
    """Weight of the sum of largest singular values of `spectral_layers`, in nats per image."""

    spectral_layers: Literal["heads", "all"] = "heads"
    """The last convolutions of every posterior and prior, or every convolution of the model."""

    @model_validator(mode="after")
    def _warmup_is_linear(self) -> Self:
        if self.kl_warmup_images is not None and self.kl_schedule != "linear":
            raise ValueError(
                f"kl_warmup_images is of the linear schedule, but kl_schedule is {self.kl_schedule}"
            )
        return self


class GuardConfig(Section):
    """Gradient control from a running quantile of the gradient norm, or from fixed norms."""

    clip_norm: float | None = Field(default=None, gt=0.0)
    """Norm that gradients are clipped to. Null: the running quantile."""

    skip_norm: float | None = Field(default=None, gt=0.0)
    """Steps whose norm exceeds this are skipped. Null: skip_factor times what is clipped to."""

    quantile: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Quantile of recent norms that gradients are clipped to."""

    window: int = Field(default=512, ge=64)
    """How many recent norms count."""

    skip_factor: float = Field(default=5.0, gt=1.0)
    """Steps whose norm exceeds this multiple of the quantile are skipped."""

    max_skips: int = Field(default=8, ge=0)
    """Consecutive skips after which a large finite step is clipped and taken all the same."""

    max_nonfinite: int = Field(default=10, ge=1)
    """Consecutive non-finite steps after which the run is rolled back."""

    max_above_uniform: int | None = Field(default=500, ge=1)
    """Consecutive steps after the warm-up with an objective above 8 bits/dim, what uniform noise
    costs, after which the run is rolled back. Null: never."""

    max_rollbacks: int = Field(default=2, ge=0)
    """Returns to the last good state, each at half the learning rate of before; the run ends with
    exit code 1 where the next one is due."""


class TrainConfig(Section):
    """How the model is trained. All lengths are in images, whatever the batch size."""

    images: int = Field(default=1_000_000, ge=1)
    """Length of the run."""

    lr: float = Field(default=1e-3, gt=0.0)
    """Peak learning rate."""

    lr_final: float = Field(default=0.05, ge=0.0, le=1.0)
    """Learning rate at the end of a cosine schedule, as a fraction of the peak."""

    optimizer: Literal["adamax", "adamw"] = "adamax"
    """Adamax shrugs off rare giant gradients; AdamW as published for VDVAE."""

    betas: tuple[float, float] | None = None
    """Decay of the moments. Null: (0.9, 0.999) for adamax, (0.9, 0.9) for adamw."""

    weight_decay: float = Field(default=0.01, ge=0.0)
    """Decoupled weight decay (adamw only)."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""

    warmup_images: int = Field(default=3_200, ge=0)
    """Images over which the learning rate rises linearly from 0."""

    ema: float = Field(default=0.9999, ge=0.0, lt=1.0)
    """Decay of the weight average used by every verb; itself warmed up as (1 + n) / (10 + n)."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of convolutions. Auto: bf16 where the device has the instructions, else fp32."""

    compile: bool | Literal["regional"] = False
    """Run the model through torch.compile (needs a compiler; the first step takes a minute or
    more). Regional: the bottlenecks of blocks, once per kind."""

    cuda_graphs: bool = False
    """Record forward and backward of a batch once, and launch them as one from then on: for steps
    that are too small for a GPU to be busy. One process, and train.accumulate=1."""

    memory_gib: float | Literal["auto"] | None = None
    """Memory that weights, optimiser and activations of a step may take; what does not fit is
    recomputed in the backward, which changes no result. Auto: what is free. Null: no limit."""

    checkpoint_activations: Level | dict[int, Level] | None = None
    """What the backward recomputes: none, elementwise, pointwise or block, for all resolutions or
    by resolution. Null: what train.memory_gib asks for."""

    head_bands: int = Field(default=0, ge=0)
    """Compute head and likelihood in so many bands of rows, again in the backward. 0: at once."""

    accumulate: int = Field(default=1, ge=1)
    """Parts that the batch of a step goes through the model in, one after another. While free bits
    are on, each part is run forward twice: whether a group pays depends on the whole batch."""

    sharding: Sharding = "ddp"
    """How several processes (torchrun) hold the model: ddp, each all of it; fsdp, each a part, for
    models that do not fit one device."""

    objective: ObjectiveConfig = ObjectiveConfig()
    guard: GuardConfig = GuardConfig()

    log_every: int = Field(default=3_200, ge=1)
    """Images between rows of metrics.jsonl."""

    sample_every: int = Field(default=100_000, ge=1)
    """Images between sheets of samples and reconstructions."""

    checkpoint_every: int = Field(default=50_000, ge=1)
    """Images between checkpoints."""

    eval_every: int = Field(default=100_000, ge=1)
    """Images between evaluations on the test split (with the averaged weights)."""

    keep_last: int = Field(default=2, ge=1)
    """Checkpoints kept."""

    keep_best: bool = False
    """Save a checkpoint also where an evaluation on the way has the best bits/dim so far, and keep
    it; RUN/best names it to every verb."""

    log_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers that get a copy of the log and the sheets; one of them may stand without brackets.
    metrics.jsonl is written in any case."""

    @field_validator("log_to", mode="before")
    @classmethod
    def _one_is_a_list(cls, names: Any) -> Any:
        """Brackets in `train.log_to=[wandb]` have to be quoted in some shells."""
        return (names,) if isinstance(names, str) else names

    @model_validator(mode="after")
    def _graphs_are_of_whole_batches(self) -> Self:
        if self.cuda_graphs and self.accumulate > 1:
            raise ValueError(
                f"train.cuda_graphs records a batch that goes through the model at once, but "
                f"train.accumulate is {self.accumulate}; set one of them back"
            )
        return self

    @field_validator("memory_gib")
    @classmethod
    def _memory_is_positive(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float) and not value > 0:
            raise ValueError(f"wanted auto or a number of GiB above 0, got {value}")
        return value


class EvalConfig(Section):
    """How a model is scored."""

    batch: int = Field(default=64, ge=1)
    """Images per forward pass."""

    images: int | None = Field(default=None, ge=1)
    """Images scored by the evaluations during training (the first ones). Null: the whole split."""

    importance: int = Field(default=1, ge=1)
    """Importance samples per image at the end of training; 1 is the ELBO alone."""

    fid_every: int = Field(default=0, ge=0)
    """Images between measurements of how far samples are from test images; 0: none."""

    fid_samples: int = Field(default=5_000, ge=2)
    """Samples, and test images at most, of each of them."""

    fid_features: str = "inception"
    """The network that compares them, as `hvae fid --features` names it. Its weights have to be
    there when training begins."""


class Config(Section):
    """One run."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run folder. Default: the stem of the configuration file, with `_` as `-`."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of initial weights, data order and noise; each use derives its own from it."""

    runs_dir: str = "runs"
    """Folder that holds the run folders."""

    data: DataConfig
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    refine: RefineConfig = RefineConfig()

    @model_validator(mode="after")
    def _penalised_weights_are_whole(self) -> Self:
        if self.train.sharding == "fsdp" and self.train.objective.spectral:
            raise ValueError(
                "train.objective.spectral needs whole weights, which train.sharding=fsdp cuts; "
                "use train.sharding=ddp or set the penalty to 0"
            )
        return self

    @model_validator(mode="after")
    def _samples_are_drawn_by_whole_models(self) -> Self:
        if self.train.sharding == "fsdp" and self.eval.fid_every:
            raise ValueError(
                "eval.fid_every draws samples in each process by itself, which train.sharding=fsdp "
                "does not allow; use train.sharding=ddp, or hvae fid after training"
            )
        return self

    @model_validator(mode="after")
    def _data_is_complete(self) -> Self:
        """Data and model must agree where both speak."""
        if self.model.channels and self.data.channels and self.model.channels != self.data.channels:
            raise ValueError(
                f"data.channels is {self.data.channels}, model.channels is {self.model.channels}"
            )
        return self
