"""A run as a pipeline of diffusers: the classes that an exported folder loads.

On diffusers' clock: sigma = 1 - t, timestep = 1000 sigma, and a model's output is dx/dsigma, the
negative velocity. This module imports diffusers, so it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from monge.components import build
from monge.errors import UserError, nearest
from monge.tensors import expand

TIMESTEPS = 1000
"""diffusers' timestep of pure noise."""


def time_of(timestep: Tensor) -> Tensor:
    """monge's time of diffusers' timestep."""
    return (TIMESTEPS - timestep) / TIMESTEPS


class MongeTransformer(ModelMixin, ConfigMixin):
    """A network of a run, with the conversion of what it outputs.

    Args:
        network, path, output: as in the run's settings.
        shape: of a latent, (C, H, W).
        n_classes: how many labels there are; None for none.
        is_map: whether it is a map's mean velocity on the way to a next timestep.
    """

    @register_to_config
    def __init__(
        self,
        network: str,
        shape: list[int],
        n_classes: int | None = None,
        path: str = "linear",
        output: str = "velocity",
        is_map: bool = False,
    ) -> None:
        super().__init__()
        self.net = build("network", network).build(tuple(shape), n_classes)
        self.interpolant = build("path", path)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        next_timestep: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Transformer2DModelOutput:
        """dx/dsigma at a timestep, or its mean on the way to the next one.

        Args:
            hidden_states: (B, C, H, W), standardised latents.
            timestep, next_timestep: () or (B,).
            class_labels: (B,), -1 for none.
            guidance: (B,), of a map that was trained with a range of scales.
        """
        given = {"label": class_labels, "guidance": guidance}
        cond = {name: c for name, c in given.items() if c is not None} or None
        config: Any = self.config
        x, t = hidden_states, time_of(timestep)
        if config.is_map:
            end = t if next_timestep is None else time_of(next_timestep)
            said = self.net(x, end.to(x), cond, t.to(x))
        else:
            said = self.net(x, t.to(x), cond)
        # Near t = 1 the conversion divides by 1 - t, so a time of float64 is kept for it.
        v = self.interpolant.to_velocity(config.output, said, x, t)
        return Transformer2DModelOutput(sample=-v.to(x.dtype))


class MongeAutoencoder(ModelMixin, ConfigMixin):
    """An autoencoder of monge's own, in its bare latent units."""

    @register_to_config
    def __init__(
        self,
        autoencoder: str,
        data_shape: list[int],
        latent_shape: list[int],
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        spec = build("autoencoder", autoencoder)
        self.inner = spec.rebuild(tuple(data_shape), tuple(latent_shape), architecture)

    def decode(self, z: Tensor) -> DecoderOutput:
        return DecoderOutput(sample=self.inner.decode(z))


class MongePipeline(DiffusionPipeline):
    """Samples of a run, by Euler steps along its velocity, or by the jumps of its map.

    Args:
        grid: the run's; the number of steps may be changed when sampling.
        domain: the first and the last of monge's times at which the transformer is evaluated.
        channels: of an image; a grey one is the mean of what a colour autoencoder decodes.
        latents_mean, latents_std: of the autoencoder's latents, per channel.
        labels: their names.
        guidance: the run's own scale, used unless asked otherwise.
        guidance_range: of a map, the scales it was trained with.
    """

    model_cpu_offload_seq = "transformer->vae"

    def __init__(
        self,
        transformer: MongeTransformer,
        vae: Any,
        scheduler: FlowMatchEulerDiscreteScheduler,
        grid: str = "uniform:n=20",
        channels: int = 3,
        domain: list[float] | None = None,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
        labels: list[str] | None = None,
        guidance: float = 1.0,
        guidance_range: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)
        self.register_to_config(
            grid=grid,
            channels=channels,
            domain=domain or [0.0, 1.0],
            latents_mean=latents_mean or [0.0],
            latents_std=latents_std or [1.0],
            labels=labels or [],
            guidance=guidance,
            guidance_range=guidance_range or [1.0, 1.0],
        )

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: str | int | Sequence[str | int] | Tensor | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw samples.

        Args:
            batch_size: how many, where neither latents nor several labels say so.
            class_labels: names or indices, one for each sample or one for all; -1 or None: none.
            num_inference_steps: None for the run's own.
            guidance_scale: classifier-free guidance; 1 is none, None the run's own.
            latents: (B, C, H, W) standard normal noise to start from.
            output_type: "pil", "np" (B, H, W, C) or "pt" (B, C, H, W), both in [0, 1], or
                "latent", standardised.

        Raises:
            UserError: an unknown label, or a guidance scale that a map was not trained with.
        """
        transformer: Any = self.transformer
        config: Any = self.config
        wanted = self._indices(class_labels)
        if latents is not None:
            batch_size = len(latents)
        elif wanted is not None and len(wanted) > 1:
            batch_size = len(wanted)
        shape = (batch_size, *transformer.config.shape)
        if latents is None:
            where = "cpu" if generator is None else generator.device
            latents = torch.randn(shape, generator=generator, device=where)
        x = latents.to(self.device, transformer.dtype)
        label = None if wanted is None else wanted.expand(batch_size).to(self.device)
        scale = config.guidance if guidance_scale is None else float(guidance_scale)
        scheduler: Any = self.scheduler
        sigmas = self._sigmas(num_inference_steps)
        scheduler.set_timesteps(sigmas=sigmas[:-1], device=self.device)
        # In float64: what the scheduler rounds to float32 is embedded a thousandfold.
        exact = TIMESTEPS * torch.tensor(sigmas, dtype=torch.float64)
        shown: Any = self.progress_bar
        for k, timestep in enumerate(shown(scheduler.timesteps)):
            slope = self._slope(x, exact[k], exact[k + 1], label, scale)
            x = scheduler.step(slope, timestep, x).prev_sample
        images: Any = x if output_type == "latent" else self._decode(x)
        if output_type in ("pil", "np"):
            images = images.permute(0, 2, 3, 1).float().cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _indices(self, label: Any) -> Tensor | None:
        """Labels as indices; None for a run without labels."""
        config: Any = self.config
        if not config.labels:
            if label is not None:
                raise UserError("this pipeline has no labels: leave out class_labels")
            return None
        if isinstance(label, (str, int)) or label is None:
            label = [-1 if label is None else label]
        names = list(config.labels)
        return torch.tensor([_index(k, names) for k in label])

    def _sigmas(self, steps: int | None) -> list[float]:
        """The walk's points, from noise to sigma = 0."""
        config: Any = self.config
        lo, hi = config.domain
        points = build("grid", config.grid)
        if steps is not None:
            points = type(points)(**{**vars(points), "n": steps})
        inner = [t for t in points.points() if lo < t < hi]
        # Short of t = 1 the last step is along the velocity at `hi`: the posterior mean there.
        return [1 - t for t in (lo, *inner, *([hi] if hi < 1 else []), 1.0)]

    def _slope(
        self, x: Tensor, timestep: Tensor, end: Tensor, label: Tensor | None, scale: float
    ) -> Tensor:
        """dx/dsigma, guided."""
        config: Any = self.config
        transformer: Any = self.transformer
        if transformer.config.is_map:
            lo, hi = config.guidance_range
            if not lo <= scale <= hi:
                known = f"{lo:g}" if lo == hi else f"{lo:g} to {hi:g}"
                raise UserError(f"this map was trained with guidance {known}, not {scale:g}")
            given = x.new_full((len(x),), scale) if lo < hi else None
            return transformer(x, timestep, label, end, given).sample
        if scale == 1:
            return transformer(x, timestep, label).sample
        if label is None:
            raise UserError("guidance needs labels; this pipeline has none")
        both = torch.cat([label, torch.full_like(label, -1)])
        slope, null = transformer(torch.cat([x, x]), timestep, both).sample.chunk(2)
        return torch.lerp(null, slope, scale)

    def _decode(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] of standardised latents."""
        config: Any = self.config
        mean, std = (x.new_tensor(v) for v in (config.latents_mean, config.latents_std))
        vae: Any = self.vae
        z = torch.addcmul(expand(mean, x[0]), x, expand(std, x[0]))
        scale = getattr(vae.config, "scaling_factor", None) or 1.0
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        decoded = vae.decode(z / scale + shift).sample
        if decoded.shape[1] != config.channels:
            decoded = decoded.mean(1, keepdim=True)
        return (decoded / 2 + 0.5).clamp(0, 1)


def _index(label: Any, names: list[str]) -> int:
    if str(label) in names and not isinstance(label, Tensor):
        return names.index(str(label))
    if isinstance(label, str) or not -1 <= int(label) < len(names):
        raise UserError(f"unknown label {label!r}: {nearest(str(label), names)}")
    return int(label)
