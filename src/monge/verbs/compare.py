"""`monge compare`: test whether two sets differ, or which is closer to a reference."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from monge.data.reading import Reading
from monge.verbs.shown import note, tell, width


@dataclass(frozen=True, kw_only=True)
class Compare(Reading):
    """Compare two sets of samples with each other, or test which is closer to a reference.

    A, B and R are sources as for monge train (folders of images, .npz, .npy, .csv, .tsv, .parquet,
    hf:ORG/NAME, digits, target:...; all examples are taken), or run folders, which are sampled.
    heldout:SOURCE and train:SOURCE take one side of a split. No model is needed.

    `monge compare ours/ theirs/ --reference photos/`: A and B are compared with the same n real
    examples; the floor is the value of other real examples; each metric tests which set is closer,
    and the verdict combines all by Holm's rule.

    `monge compare samples.csv table.csv`: whether two sets differ at all; if no difference is
    found, which shift would have been. `monge compare RUN heldout:RUN`: a run and its data.

    The metrics are biased by n, so n is equal for all sets: give many examples, twice as many of R.
    """

    a: Positional[str]
    """The first set, called A."""
    b: Positional[str]
    """The second set, called B."""
    reference: str | None = None
    """Real data that A and B should resemble; none: compare A with B. A run folder means its
    data; of data with their own split, the held-out part is used."""
    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """Most examples of each set, and samples to draw from a run; time grows as n^2 to n^3."""
    features: str | None = None
    """Also compare images in the features of a network: lenet5:FILE.safetensors for grey images of
    28 or 32 pixels, resnet20:FILE.safetensors for RGB images of 32."""
    target: str | None = None
    """Column of tables that models learn to predict from A and from B, tested on real rows; none:
    the last category, or else the last number."""
    out: Path | None = None
    """Folder for comparison.json, pictures and comparison.html: new, empty, or with only an
    earlier comparison, which is replaced."""
    fail_if_different: bool = False
    """Exit with code 3 if A and B differ significantly; else with 0."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """Device for sampling runs: auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    trust_code: bool = False
    """Execute the components in files that the run keeps in code/, if it has any: only for a run of
    your own, or of somebody you trust."""
    json: bool = False
    """Print the result as JSON."""


def act(arguments: Compare) -> dict[str, Any]:
    """Compare two sets of samples."""
    from monge.comparison.compare import compare_sources
    from monge.runs.restore import set_threads

    set_threads(arguments.threads)
    reading = Reading(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Reading)})
    result, found = compare_sources(
        arguments.a,
        arguments.b,
        arguments.reference,
        reading=reading,
        n=arguments.n,
        seed=arguments.seed,
        features=arguments.features,
        target=arguments.target,
        device=arguments.device,
        out=arguments.out,
        say=note,
    )
    for name, known in found["card"]["sets"].items():
        tell(arguments, f"{name}: {known['taken']}, {known['source']}")
    tell(arguments, result.text(width()))
    tell(arguments, f"repeat   {found['card']['command']}")
    if arguments.out is not None:
        tell(arguments, f"page     {arguments.out / 'comparison.html'}")
    failed = arguments.fail_if_different and result.verdict.differs
    return {**found, "exit_code": 3} if failed else found
