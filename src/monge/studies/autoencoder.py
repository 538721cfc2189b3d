r"""Study: what pre-training samples and a domain shift do to a linear autoencoder, and to W2.

The data are Gaussian with a few large and many small variances, and principal components keep the
large ones. The autoencoder is an affine map x -> A x + b, so its reconstruction error under any law
with two moments, and the W2 between a Gaussian law and its decoded image, are closed. A shift moves
the mean of the data after pre-training: along a kept direction, or across all of them.

References:
    | Flow matching in latent space with transformers (2404.02538), Sec. 3: domain shift
    | Nonasymptotic upper bounds for the reconstruction error of PCA (Reiss & Wahl, 2020)
    |   -- https://arxiv.org/abs/1609.03779
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from monge.autoencoders.pca import PCA, PCASpec
from monge.studies.claims import Ceiling, Equal, Slope
from monge.studies.study import Axis, Cell, Row, Study
from monge.targets.gaussian import Gaussian
from monge.targets.wasserstein import bures

KEPT = 4
"""Components that the autoencoder keeps."""

SMALL = 0.1
"""Standard deviation in each direction that is not kept."""

ERROR = 0.3
"""W2 of the latent law that is decoded, from the exact one, in the rows with an error of both."""


def variances(dim: int) -> Tensor:
    """Of the data along the axes: 4, 3, 2, 1, then 0.01."""
    found = torch.full((dim,), SMALL**2, dtype=torch.float64)
    found[:KEPT] = torch.arange(KEPT, 0, -1)
    return found


def fitted(dim: int, samples: int, rng: torch.Generator) -> PCA:
    """Principal components of so many samples; of the law itself for 0."""
    deviations = variances(dim).sqrt()
    if samples:
        x = deviations * torch.randn(samples, dim, generator=rng, dtype=torch.float64)
    else:
        corners = math.sqrt(dim) * torch.diag(deviations)
        x = torch.cat([corners, -corners])  # with exactly the moments of the law
    return PCASpec(dim=KEPT).build((dim,)).fit(x)


def affine(autoencoder: PCA, dim: int) -> tuple[Tensor, Tensor]:
    """A and b of decode(encode(x)) = A x + b, read off its images."""

    def image(x: Tensor) -> Tensor:
        return autoencoder.decode(autoencoder.encode(x).mean)

    b = image(torch.zeros(1, dim, dtype=torch.float64))[0]
    return (image(torch.eye(dim, dtype=torch.float64)) - b).T, b


def reconstruction(law: Gaussian, a: Tensor, b: Tensor) -> float:
    """The root of E|A x + b - x|^2."""
    left = a - torch.eye(law.dim, dtype=torch.float64)
    spread = torch.trace(left @ law.covariance @ left.T)
    return math.sqrt(float(spread + (left @ law.mean + b).square().sum()))


def cell(at: Cell) -> Iterator[Row]:
    """All numbers of samples and all shifts."""
    dim, covariance = at["dim"], torch.diag(variances(at["dim"]))
    direction = torch.zeros(dim, dtype=torch.float64)
    direction[0 if at["place"] == "inside" else dim - 1] = 1.0
    least = math.sqrt(float(variances(dim)[KEPT:].sum()))
    for samples in at["samples"]:
        autoencoder = fitted(dim, samples, at.stream("pre-training", samples))
        a, b = affine(autoencoder, dim)
        for shift in at["shift"]:
            law = Gaussian(shift * direction, covariance)
            error = reconstruction(law, a, b)
            decoded = a @ law.mean + b, a @ covariance @ a.T
            aside = autoencoder.directions[:, 0] * ERROR
            row: Row = {"samples": samples, "shift": shift, "rms": error, "least": least}
            row["w2"] = bures(*decoded, law.mean, covariance)
            row["total"] = bures(decoded[0] + aside, decoded[1], law.mean, covariance)
            row["allowed"] = error + ERROR  # the decoder has the Lipschitz constant one
            if samples and not shift:
                row["excess"] = error**2 - least**2
            if not samples and shift:
                added = error**2 - least**2
                key = "added" if at["place"] == "outside" else "inside"
                row[key] = math.sqrt(max(added, 0.0)) if key == "added" else error
            yield row


STUDY = Study(
    name="autoencoder",
    title="The autoencoder",
    question="How many samples does pre-training need, and what does a domain shift cost?",
    axes=(
        Axis("dim", (16, 64, 256), (16, 64), "dimension of the data"),
        Axis("place", ("inside", "outside"), ("inside", "outside"), "of the shift"),
        Axis("seed", tuple(range(10)), (0, 1, 2, 3, 4), "of the pre-training samples"),
        Axis("samples", (0, *(2**k for k in range(7, 16))), (0, *(2**k for k in range(7, 14))),
             "of pre-training; 0: the law itself", together=True),
        Axis("shift", (0.0, 0.03, 0.1, 0.3, 1.0, 3.0), (0.0, 0.1, 0.3, 1.0), "of the mean",
             together=True),
    ),
    cell=cell,
    claims=(
        Slope(
            "the excess reconstruction error falls like 1/m", "excess", "samples", -1.0, "rate",
            "arXiv 1609.03779: excess risk of PCA with a spectral gap", "infinity", ("dim",),
            where={"place": ("inside",)}, finest=6, tolerance=0.05,
        ),
        Slope(
            "a shift outside the span adds its own length", "added", "shift", 1.0, "rate",
            "2404.02538, domain shift; exact for a linear autoencoder", "zero", ("dim",),
            where={"seed": (0,)}, tolerance=0.01,
        ),
        Equal(
            "a shift inside the span adds nothing", "inside", "least",
            "exact for a linear autoencoder", ("dim",), tolerance=1e-6,
        ),
        Ceiling(
            "W2 of the decoded law is at most the reconstruction error", "w2", "rms",
            "each example with its own reconstruction", ("dim", "place"),
        ),
        Ceiling(
            "the total W2 is at most reconstruction + Lip(D) W2 of the latents", "total", "allowed",
            "2404.02538, the triangle inequality of its main theorem", ("dim", "place"),
        ),
    ),
    reading=(
        "Expectations are closed; only the pre-training samples are random. W2 is below the "
        "reconstruction error, because what is lost need not be paired with its own example. For "
        "the exact components the two are equal."
    ),
    sources=("https://arxiv.org/abs/2404.02538", "https://arxiv.org/abs/1609.03779"),
    repeats="seed",
    minutes=1.5,
)  # fmt: skip
