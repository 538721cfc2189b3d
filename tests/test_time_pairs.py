"""Laws of the two times of a flow map: order, domain, span, and their distributions."""

from __future__ import annotations

import pytest
import scipy.stats
import torch

from monge.components import build
from monge.errors import UserError
from monge.tensors import stream
from monge.time_pairs import Dyadic, LogitSpans, PairLaw, Source, ToData, Triangle

LAWS: list[PairLaw] = [
    build("pairs", text)
    for text in (
        "triangle",
        "triangle:both=true",
        "logit_spans:mean=-1,std=0.5",
        "logit_spans:both=true",
        "source:part=0.3",
        "to_data",
        "dyadic:levels=4",
    )
]

N = 20_000


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_pairs_lie_in_the_domain_in_order_and_within_the_span(law: PairLaw) -> None:
    for domain in ((0.0, 1.0), (0.2, 0.7)):
        s, t = law.draw(N, domain, stream(0, "pairs"))
        lo, hi = domain
        assert float(torch.minimum(s, t).min()) >= lo and float(torch.maximum(s, t).max()) <= hi
        back = float((s > t).double().mean())
        assert back == pytest.approx(0.5 if law.backwards else 0.0, abs=0.02)
        if law.only_to_data:
            assert bool((t == hi).all())
        s, t = law.draw(N, domain, stream(0, "pairs"), span=0.25)
        assert float((t - s).abs().max()) <= 0.25 * (hi - lo) + 1e-6
        assert not law.only_to_data or bool((t == hi).all())
    one, two = (law.draw(N, (0.0, 1.0), stream(0, "pairs")) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])


def test_the_triangle_is_uniform() -> None:
    """The span has density 2 (1 - d), and s given it is uniform."""
    s, t = Triangle().draw(N, (0.0, 1.0), stream(0, "pairs"))
    span = (t - s).double().numpy()
    assert scipy.stats.kstest(span, lambda d: 1 - (1 - d) ** 2).pvalue > 0.01
    assert scipy.stats.kstest(s.double().numpy() / (1 - span), "uniform").pvalue > 0.01


def test_logit_spans() -> None:
    s, t = LogitSpans(-1.0, 0.5).draw(N, (0.0, 1.0), stream(0, "pairs"))
    z = (torch.logit((t - s).double()) + 1) / 0.5
    assert scipy.stats.kstest(z.numpy(), "norm").pvalue > 0.01


def test_a_part_starts_at_the_source() -> None:
    s, t = Source(0.3).draw(N, (0.0, 1.0), stream(0, "pairs"))
    assert float((s == 0).double().mean()) == pytest.approx(0.3, abs=0.015)
    assert scipy.stats.kstest(t[s == 0].double().numpy(), "uniform").pvalue > 0.01


def test_dyadic_spans() -> None:
    s, t = Dyadic(4).draw(N, (0.0, 1.0), stream(0, "pairs"))
    spans, counts = (t - s).unique(return_counts=True)
    assert spans.tolist() == [1 / 8, 1 / 4, 1 / 2, 1.0]
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 0.01
    assert bool(((s / (t - s)) % 1 == 0).all())


def test_to_data_ends_at_one() -> None:
    s, t = ToData().draw(N, (0.0, 1.0), stream(0, "pairs"))
    assert bool((t == 1).all())
    assert scipy.stats.kstest(s.double().numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source:part=2", r"part must lie in \[0, 1\]"),
        ("dyadic:levels=0", "levels must lie in 1..20"),
        ("logit_spans:std=0", "std must be positive"),
    ],
)
def test_bad_settings(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("pairs", text)
