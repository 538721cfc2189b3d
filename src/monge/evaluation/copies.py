"""The spaces in which copies of training examples are looked for.

Where the autoencoder loses something, data and samples differ by its error, which hides copies: a
sample is then compared with *decoded* training examples, and held-out examples and planted copies
pass the autoencoder as well. And copies are looked for in the latent space itself, where the flow
would make them. Where the autoencoder is a bijection, the two are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from monge.data.base import Data
from monge.evaluation.baselines import gaussian_name
from monge.evaluation.latent_rows import GROUP
from monge.latents.batches import Latents, encode_parts
from monge.metrics.copies import Searched, copies_row, plant
from monge.metrics.samples import Rows, random_rows
from monge.metrics.table import Row
from monge.sampling.model import GenerativeModel
from monge.sampling.samples import Samples
from monge.system import row_sharing
from monge.tensors import CHUNK, stream
from monge.types import Posterior

MOST_BYTES = 2**30
"""Memory for training examples or latents; of more a random part is searched."""

MOST_DECODED = 3000
"""Training examples, mirror images included, up to which all are decoded. More are compared as
they are, and the ceiling says what the autoencoder's error hides then."""

MOST_HELDOUT = 1000
EXACT = "training latents"


@dataclass(frozen=True)
class Copies:
    """Where copies of training examples are looked for.

    Attributes:
        samples, heldout, train: (n, *shape), as in `Searched`, before they are scaled.
        planted: likewise, of each kind of noise.
        copied: rows of `train` that the planted ones copy.
        examples: in `train`, mirror images not counted.
        plain: whether `train` begins with all training examples, as they are and in order.
        latent: the same search in the latent space, where that is not the data in other units.
        exact: latents of training examples as the flow learns them, to be compared there.
        weight: (d,), by which standardised latents are measured.
        gaussian_name: of the Gaussian baseline.
    """

    samples: Tensor
    heldout: Tensor
    train: Tensor
    planted: tuple[Tensor, ...]
    copied: tuple[Tensor, ...]
    examples: int
    plain: bool = False
    latent: Searched | None = None
    exact: Tensor | None = None
    weight: Tensor | None = None
    gaussian_name: str = "gaussian"

    def scaled(self, scale: Tensor) -> Searched:
        """The search among examples, measured in `scale`."""
        sets = (self.samples, self.heldout, self.train, *self.planted)
        samples, heldout, train, *planted = [(x / scale).flatten(1) for x in sets]
        return Searched(samples, heldout, train, tuple(planted), self.examples)

    def in_view(
        self,
        view: Callable[[Tensor], Tensor],
        samples: Tensor,
        known: Tensor,
        seed: int,
    ) -> Searched:
        """The search among what a feature network makes of the examples.

        Args:
            view: features (n, d) of examples.
            samples: those of the samples.
            known: those of all training examples, or of a random part as large as is searched.
        """
        rows = random_rows(self.examples, len(known), stream(seed, "copies", "view"))
        mirrored = rows + self.examples if len(self.train) > self.examples else rows[:0]
        own = known if self.plain and len(known) == self.examples else view(self.train[rows])
        train = torch.cat([own, view(self.train[mirrored])]) if len(mirrored) else own
        planted = [
            view(x[torch.isin(source % self.examples, rows)])
            for x, source in zip(self.planted, self.copied, strict=True)
        ]
        return Searched(samples, view(self.heldout), train, tuple(planted), len(rows))

    def latent_rows(self, gaussian: Tensor) -> list[Row]:
        """The row of the latent space, if it is one of its own.

        Args:
            gaussian: standardised latents (n, *latent) to stand beside the samples.
        """
        if self.latent is None or self.exact is None or self.weight is None:
            return []
        beside: Mapping[str, Tensor] = {
            self.gaussian_name: gaussian.flatten(1) * self.weight,
            EXACT: self.exact,
        }
        settings = {"compared with": "the means of training examples' posteriors"}
        return [copies_row(self.latent, beside, space="latent", group=GROUP, settings=settings)]


def where_copies_are(
    run: GenerativeModel, samples: Samples, data: Data, scale: Tensor, seed: int
) -> Copies:
    """The sets in which copies of training examples are looked for.

    Args:
        samples: of the run.
        scale: what distances between examples are measured in.
    """
    n, flip = len(data.train), run.mirrored
    numbers = max(math.prod(data.shape), math.prod(run.autoencoder.latent_shape))
    most = max(2, MOST_BYTES // (4 * numbers * (1 + flip)))
    rows = random_rows(n, most, stream(seed, "copies", "train"))
    some = random_rows(len(data.heldout), MOST_HELDOUT, stream(seed, "copies", "heldout"))
    if run.autoencoder.bijective:
        train = _with_mirrors(data.train[rows], flip)
        moved, copied = plant((train / scale).flatten(1), len(rows), seed)
        planted = moved.reshape(len(moved), *train.shape[1:]) * scale
        every = len(rows) == n
        return Copies(samples.x, data.heldout[some], train, (planted,), (copied,), len(rows), every)
    latents = run.training_latents(data)
    every = torch.cat([rows, rows + n]) if len(latents) > n else rows
    return _through_autoencoder(run, samples, data, latents, (rows, every, some), seed)


def _through_autoencoder(
    run: GenerativeModel,
    samples: Samples,
    data: Data,
    latents: Latents,
    rows: tuple[Rows, Rows, Rows],
    seed: int,
) -> Copies:
    """The same where the autoencoder is no bijection.

    Args:
        rows: training examples, the same with their mirror images, and held-out examples.
    """
    chosen, every, some = rows
    known = latents.rows(every)
    weight = _weight(run, known)
    centres = known.mean.flatten(1).double()
    exact, planted, sources = known.mean, [], []
    # A flow errs in standardised units, where no number of the latent is less than another.
    for k, unit in enumerate((weight, torch.ones_like(weight))):
        moved, copied = plant(centres * unit, len(chosen), seed)
        exact = _drawn(known.rows(copied), seed, f"planted {k}")
        sources.append(copied)
        stray = moved / unit - centres[copied]
        planted.append((exact.flatten(1) + stray).float().reshape_as(exact))
    parts = (data.heldout[part] for part in some.split(CHUNK))
    real = _drawn(encode_parts(run.autoencoder, parts, run.device), seed, "heldout")

    def measured(z: Tensor) -> Tensor:
        return z.flatten(1) * weight

    decoded = len(every) <= MOST_DECODED
    train = known.mean if decoded else _with_mirrors(data.train[chosen], len(every) > len(chosen))
    return Copies(
        samples.x,
        _decoded(run, real),
        _decoded(run, train) if decoded else train,
        tuple(_decoded(run, z) for z in planted),
        tuple(sources),
        len(chosen),
        not decoded and len(chosen) == len(data.train),
        Searched(
            measured(samples.z),
            measured(real),
            measured(known.mean),
            tuple(map(measured, planted)),
            len(chosen),
        ),
        measured(exact),
        weight,
        gaussian_name(run),
    )


def _with_mirrors(x: Tensor, flip: bool) -> Tensor:
    return torch.cat([x, x.flip(-1)]) if flip else x


def _weight(run: GenerativeModel, known: Posterior) -> Float[Tensor, "d"]:
    """What standardised latents are multiplied with before distances are taken.

    Latents that are points are measured in the bare autoencoder's units; others in the standard
    deviation of the posterior, so that a number that carries nothing adds no more than its noise.
    """
    if known.logvar is None:
        return run.autoencoder.std.cpu().expand(run.autoencoder.latent_shape).flatten().double()
    return known.logvar.double().exp().flatten(1).mean(0).rsqrt()


def _drawn(posterior: Posterior, seed: int, what: str) -> Tensor:
    """Latents drawn from posteriors, as training draws them."""
    shape = posterior.mean.shape
    return posterior.sample(torch.randn(shape, generator=stream(seed, "copies", "draw", what)))


def _decoded(run: GenerativeModel, z: Tensor) -> Tensor:
    """The data of standardised latents, as samples become it."""
    x = row_sharing.spread(run.decode_rows, CHUNK, {}, {"z": z})["x"]
    return run.hardened(x)
