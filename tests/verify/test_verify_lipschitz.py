"""Jacobian norms and expansion rates of maps whose Jacobian is known."""

from __future__ import annotations

import torch

from monge.paths import Linear
from monge.tensors import stream
from monge.verification.lipschitz import expansion_rate, jacobian_norm, stretching
from monge.verification.selftest import gaussian, pipeline_of

MATRIX = torch.randn(6, 6, generator=stream(0, "matrix"), dtype=torch.float64)
X = torch.randn(5, 6, generator=stream(1, "x"), dtype=torch.float64)


def test_the_norm_of_a_linear_map_is_its_spectral_norm() -> None:
    exact = torch.linalg.matrix_norm(MATRIX, 2)
    found = jacobian_norm(lambda x: x @ MATRIX.T, X, iterations=200)
    torch.testing.assert_close(found, exact.expand(5), rtol=1e-6, atol=0)


def test_the_rate_is_the_largest_eigenvalue_of_the_symmetric_part() -> None:
    """Also where the most negative one is larger in modulus."""
    for matrix in (MATRIX, MATRIX - 10.0 * torch.eye(6), -torch.eye(6, dtype=torch.float64)):
        exact = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
        norm = torch.linalg.matrix_norm(matrix, 2).expand(5)
        found = expansion_rate(lambda x, m=matrix: x @ m.T, X, norm, iterations=2000)
        torch.testing.assert_close(found, exact.expand(5), rtol=1e-5, atol=1e-6)


def test_of_an_exact_field_the_observed_rate_is_the_exact_one() -> None:
    """A Gaussian's field is affine in x, so its Jacobian is the same at all points."""
    target = gaussian(3)
    x0 = torch.randn(8, 3, generator=stream(2, "x0"), dtype=torch.float64)
    found = stretching(pipeline_of(target), x0, None, x0, times=5)
    assert found.exact_rate is not None
    torch.testing.assert_close(
        torch.tensor(found.rate), torch.tensor(found.exact_rate), rtol=0.05, atol=0.05
    )
    flow = target.flow_map(Linear())
    assert found.encoder is not None and abs(found.encoder - 1) < 1e-6
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None], 0.0, 1.0)[0], x0[0])
    largest = float(torch.linalg.matrix_norm(jacobian, 2))
    assert 0.7 * largest <= found.amplification <= 1.02 * largest
