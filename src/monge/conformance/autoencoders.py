"""The laws of autoencoders, given as a specification that builds one, or built."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monge.conformance.measuring import (
    SHAPES,
    Broken,
    DoesNotApply,
    Outcome,
    gap,
    holds,
    normal,
    within,
    worst,
)
from monge.errors import UserError
from monge.tensors import stream
from monge.types import Autoencoder, Posterior, State

N = 12

GOLDEN = {"identity": (1, 8, 8), "pca": (12,), "conv": (4, 2, 2)}
"""Latent shapes, under the default settings, of 13 images (1, 8, 8): as many directions as they
span, and an eighth of the numbers on a grid 4 times coarser."""

IMAGES = ((1, 28, 28), (3, 32, 32))
"""Shapes that are tried on autoencoders that take none of the smaller ones."""


def data_of(shape: tuple[int, ...], n: int = N) -> State:
    """Data that vary in every direction, with a mean, within [-1, 1] nearly always."""
    return 0.3 * normal(n, *shape, key="data") + 0.1


def built(component: Any, n: int = 200) -> Autoencoder:
    """The component itself, or what it builds, fitted, for the first shape that it takes."""
    if not hasattr(component, "build"):
        return component
    problem: Exception | None = None
    for shape in (*reversed(SHAPES), *IMAGES):
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made: Any = component.build(shape)
        except UserError as error:
            problem = problem or error
            continue
        made = made.double().eval() if isinstance(made, nn.Module) else made
        if hasattr(made, "fit"):
            made.fit(data_of(shape, n))
        return made
    raise Broken(f"it builds for none of the shapes {SHAPES + IMAGES}: {problem}") from problem


def data_for(autoencoder: Any, n: int = N) -> State:
    """Data of the shape and in the precision that an autoencoder takes."""
    shape = getattr(autoencoder, "data_shape", None)
    if shape is None:
        raise Broken("it has no `data_shape`")
    floats = [t for t in _tensors(autoencoder) if t.is_floating_point()]
    return data_of(tuple(shape), n).to(floats[0].dtype if floats else torch.float64)


def _tensors(autoencoder: Any) -> list[Tensor]:
    return list(autoencoder.state_dict().values()) if isinstance(autoencoder, nn.Module) else []


def tolerance(x: State, exact: float) -> float:
    return exact if x.dtype == torch.float64 else 1e-4


@torch.no_grad()
def law_shapes(component: Any) -> Outcome:
    """Latents have the latent shape, decoded data the data's, both are finite."""
    autoencoder = built(component)
    x = data_for(autoencoder)
    posterior = autoencoder.encode(x)
    expected = (N, *autoencoder.latent_shape)
    for name, z in (("mean", posterior.mean), ("logvar", posterior.logvar)):
        if z is not None:
            same = z.shape == expected and z.dtype == x.dtype and bool(z.isfinite().all())
            holds(same, f"{name} is {tuple(z.shape)} {z.dtype}, not finite {expected} {x.dtype}")
    decoded = autoencoder.decode(posterior.mean)
    same = decoded.shape == x.shape and bool(decoded.isfinite().all())
    return holds(same, f"data {tuple(x.shape)} are decoded to {tuple(decoded.shape)}")


@torch.no_grad()
def law_deterministic(component: Any) -> Outcome:
    """Encoding and decoding again gives the same: randomness belongs to `Posterior.sample`."""
    autoencoder = built(component)
    x = data_for(autoencoder)
    first, again = autoencoder.encode(x), autoencoder.encode(x)
    decoded = gap(autoencoder.decode(first.mean), autoencoder.decode(first.mean))
    found = [within("change of the mean", gap(first.mean, again.mean), 0.0)]
    found.append(within("change of the decoded data", decoded, 0.0))
    if first.logvar is not None and again.logvar is not None:
        found.append(within("change of the logvar", gap(first.logvar, again.logvar), 0.0))
    return worst(*found)


@torch.no_grad()
def law_batch_independence(component: Any) -> Outcome:
    """An example's latent and decoded data do not depend on the batch it is in."""
    autoencoder = built(component)
    x = data_for(autoencoder)
    order = torch.tensor([7, 0, 4])
    posterior, some = autoencoder.encode(x), autoencoder.encode(x[order])
    decoded = autoencoder.decode(posterior.mean)[order], autoencoder.decode(some.mean)
    allowed = tolerance(x, 1e-10)
    return worst(
        within("difference of the latent", gap(some.mean, posterior.mean[order]), allowed),
        within("difference of the decoded data", gap(*decoded), allowed),
    )


@torch.no_grad()
def law_round_trip(component: Any) -> Outcome:
    """Where a log-determinant is declared, decode and encode undo each other, both ways."""
    autoencoder = built(component)
    if autoencoder.log_abs_det is None:
        return DoesNotApply("it declares no log-determinant, so need not be a bijection")
    x = data_for(autoencoder)
    z = normal(N, *autoencoder.latent_shape, key="z").to(x)
    allowed = tolerance(x, 1e-10)
    rebuilt = autoencoder.decode(autoencoder.encode(x).mean)
    returned = autoencoder.encode(autoencoder.decode(z)).mean
    return worst(
        within("|D(E(x)) - x|", gap(rebuilt, x), allowed),
        within("|E(D(z)) - z|", gap(returned, z), allowed),
    )


def law_log_abs_det(component: Any) -> Outcome:
    """The declared log-determinant is that of the decoder's Jacobian, wherever it is taken."""
    autoencoder = built(component)
    declared = autoencoder.log_abs_det
    if declared is None:
        return DoesNotApply("it declares no log-determinant")
    like = data_for(autoencoder, 1)
    found = []
    for key in ("here", "there"):
        z = normal(*autoencoder.latent_shape, key=key).to(like)
        jacobian = torch.func.jacfwd(lambda y: autoencoder.decode(y[None])[0].flatten())(z)
        measured = torch.linalg.slogdet(jacobian.reshape(-1, z.numel()).double()).logabsdet
        found.append(within("error in nats", measured - declared, tolerance(like, 1e-8)))
    return worst(*found)


@torch.no_grad()
def law_posterior_is_sampled_by_its_moments(component: Any) -> Outcome:
    """Zero noise gives the mean; unit noise lies one standard deviation away."""
    autoencoder = built(component)
    posterior: Posterior = autoencoder.encode(data_for(autoencoder))
    zero, one = torch.zeros_like(posterior.mean), torch.ones_like(posterior.mean)
    found = [within("|z - mean|", gap(posterior.sample(zero), posterior.mean), 0.0)]
    if posterior.logvar is not None:
        away = posterior.sample(one) - posterior.mean
        found.append(within("|z - mean| - std", gap(away, (posterior.logvar / 2).exp()), 1e-5))
    return worst(*found)


def law_loss_trains(component: Any) -> Outcome:
    """A trainable specification has a loss for each example that reaches all parameters."""
    if not getattr(component, "trainable", False):
        return DoesNotApply("it is not trained by gradient steps")
    network: Any = built(component)
    x = data_for(network)
    # At their start some layers are zero on purpose and hide others from the gradient.
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter += 0.05 * normal(*parameter.shape, key=f"weights {k}").to(parameter)
    batch = component.draw({"x": x}, stream(0, "loss"))
    loss = component.loss(network, batch).per_example
    holds(loss.shape == (N,) and bool(loss.isfinite().all()), f"the loss is {loss}")
    loss.sum().backward()
    still = [k for k, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    return holds(not still, f"no gradient reaches {', '.join(still[:5])}")


def law_golden_shape(component: Any) -> Outcome:
    """Under its default settings, an autoencoder of monge's has the printed latent shape."""
    if repr(component) not in GOLDEN:
        return DoesNotApply("no shape is printed for it")
    autoencoder = component.build((1, 8, 8))
    if hasattr(autoencoder, "fit"):
        autoencoder.fit(data_of((1, 8, 8), 13))
    shape, golden = tuple(autoencoder.latent_shape), GOLDEN[repr(component)]
    return holds(shape == golden, f"the latent shape is {shape}, not {golden}")
