"""The command line: arguments to verbs, nothing else.

Results go to standard output, everything else to standard error. Exit codes: 0 fine, 2 bad
input, 3 a check failed, 4 training diverged, 130 stopped by a signal.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

import tyro
from tyro.conf import Positional, arg

from monge import processes
from monge.data.raw import shown_lines
from monge.data.reading import Reading
from monge.errors import CheckFailed, UserError, nearest
from monge.runs.spec import TrainSpec, from_yaml

HELP = """\
monge trains, samples, distils and verifies latent flow-matching generative models.

usage: monge VERB ... [--help]

  train SOURCE        train a model on data; run again to continue
  distil RUN          turn a trained run into one that samples in one to sixteen steps
  sample RUN          draw samples from a trained run
  evaluate RUN        measure the samples against held-out data, and write the report
  verify RUN          say where the Wasserstein-2 error comes from, and what to change
  encode RUN SOURCE   the noise, or the latents, that a run makes of data
  decode RUN FILE     data of noise or latents again, or what lies between them
  export RUN          a .pt2 program of torch, or a folder for diffusers
  compare A B         tell two sets of samples apart, or which is closer to --reference R
  autoencoder SOURCE  train an autoencoder alone, to use with --autoencoder
  info RUN            what a run is, how far it is, and how good
  cache               what is cached of data and latents: list, clear
  recipes             complete named runs: list, show NAME
  check FILE.py:NAME  put a component of your own through the conformance laws
  demo                train, sample and evaluate on the bundled digits, in about three minutes

SOURCE is a folder of images or parquet files, a .csv, .tsv, .parquet, .npz or .npy file,
hf:ORG/NAME, digits, or a law known exactly: target:gaussian:dim=2, target:mixture:dim=16,modes=5,
target:box:dim=2, target:hypercube:dim=2, target:product:laws=laplace+beta, target:latent:dim=16.

  monge train photos/ --image-size 64 --minutes 30
  monge train table.csv --label-column species --drop id

Start with `monge demo`, then `monge train --help`.
"""


@dataclass(frozen=True)
class Train(TrainSpec):
    """Train a model on data, in a run folder; run the same command again to continue.

    SOURCE: a folder of images (classes by folder, or by a labels.csv), a folder of parquet files,
    a .csv, .tsv, .parquet, .npz or .npy file (images are uint8, or floats in [-1, 1]),
    hf:ORG/NAME, digits, or a known law, target:NAME:dim=..: gaussian, mixture, box, hypercube,
    product, latent
    """

    data: Positional[str] = "digits"
    """Source of the data."""
    out: Path | None = None
    """Run folder; by default runs/<data>-<8 hex of the settings>."""
    recipe: str | None = None
    """Start from a recipe's settings (`monge recipes`)."""
    config: Path | None = None
    """Start from the settings in a YAML file."""
    dry_run: bool = False
    """Time three steps, say what the run would take, and stop."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Distil:
    """Turn a trained run, whatever it predicts, into a flow map: one to sixteen steps, not fifty.

    The map takes over the run's autoencoder, network, data and labels. It can be sampled with any
    number of steps; what is left to its teacher is printed for each. Run again to continue.

    Without a teacher: monge train SOURCE --objective self-lagrangian.
    """

    run: Positional[Path]
    """Folder of the trained run, the teacher."""
    objective: str = "lagrangian"
    """lagrangian, eulerian, progressive, consistency, continuous-consistency; with
    :stop=none|convex|full, derivative=auto|jvp|difference, diagonal=.., clip=.., anneal=..,
    weight=none|learned|adaptive; or reflow, for a straighter flow instead of a map."""
    pairs: str = "auto"
    """Law of the times (s, t): triangle, triangle:both=true (backwards too), source:part=..,
    logit_spans:mean=..,std=.., to_data, dyadic:levels=..; auto: the objective's own."""
    guidance: str | None = None
    """Guidance of the teacher: a scale, or a range as 1..3 that is chosen when sampling; none: the
    teacher's own."""
    network: str = "auto"
    """auto: the teacher's network with a second time, starting from its weights."""
    steps: int | None = None
    """Training steps; none: as many as the teacher's."""
    minutes: float | None = None
    """Training time."""
    batch: int | None = None
    """Examples per step; none: the teacher's."""
    micro_batch: int | Literal["auto"] | None = None
    """Examples per forward pass; auto: as many as fit; none: as the teacher was trained."""
    lr: float | None = None
    """Peak learning rate; none: the teacher's."""
    ema: float | None = None
    """Decay of the weights' moving average; none: the teacher's."""
    precision: Literal["auto", "float32", "bf16", "float64"] | None = None
    """Of training; none: the teacher's."""
    compile: bool = False
    """Compile the network."""
    shard: bool = False
    """Share out weights, average and optimiser state over the processes (FSDP)."""
    save_every: int | None = None
    """Steps between checkpoints; none: the teacher's."""
    sample_every: int | None = None
    """Steps between sample grids and looks at the map's error; none: the teacher's."""
    seed: int | None = None
    """Seed of everything random; none: the teacher's."""
    out: Path | None = None
    """Run folder; by default runs/<data>-<8 hex of the settings>."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5:rtol=..,atol=.."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    guidance: float | None = None
    """Classifier-free guidance scale; 1 is none."""
    final: Literal["auto", "none", "divide", "posterior_mean"] | None = None
    """After the last step."""
    seed: int = 0
    """Sample i depends on (seed, i) alone."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Sampling(Sampler):
    run: Positional[Path]
    """Run folder."""
    n: Annotated[int, arg(aliases=["-n"])] = 64
    """How many samples."""


@dataclass(frozen=True)
class Sample(Sampling):
    """Draw samples: a grid, and files in the formats asked for."""

    steps: int | None = None
    """Steps of the solver, or jumps of a map; none: the run's own."""
    label: str | None = None
    """Names of labels with commas between, or all; none: as often as in the data."""
    condition: str | None = None
    """Values of a table's condition columns, "a=3.5,b=1"; none: those of training rows."""
    out: Path | None = None
    """Folder for the samples, new or empty, or of earlier samples alone, which are replaced; by
    default RUN/samples/seed-<seed>-<6 hex of the settings>."""
    format: str | None = None
    """png, npz (arr_0, as ADM's evaluation reads it), csv, parquet; several with commas; none: png
    for images, csv for tables."""


@dataclass(frozen=True)
class Evaluate(Sampling):
    """Measure samples against held-out data: the table, the pictures and the report."""

    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """How many samples."""
    steps: str | None = None
    """Steps of the solver, or jumps of a map; none: the run's own. Several, 1,2,4,8,16, add the
    quality by number of steps, a map's teacher beside it."""
    features: str | None = None
    """Measure in the features of a network, too: lenet5:FILE.safetensors for grey images of 28 or
    32 pixels, resnet20:FILE.safetensors for RGB images of 32, MODULE.py:FACTORY or
    MODULE.py:FACTORY:FILE.safetensors for one of your own (images in [-1, 1] to features, or to
    features and logits), fid for Inception-v3 (needs the extra fid)."""


@dataclass(frozen=True)
class Verify(Sampler):
    """Say where the Wasserstein-2 error of the samples comes from, and which setting to change.

    Every part of the way from noise to data is compared with a better one from the same noise:
    solver, guidance, source, velocity, early stopping, autoencoder. Their sum is at least the
    distance to the data where the true law is known (monge train target:...), an estimate
    elsewhere.

    A velocity field made elsewhere: monge verify SOURCE --component FILE.py:NAME, a callable
    f(x, t) or f(x, t, label) on the data of SOURCE, whose clock and output you say.

    A class-conditional transformer of diffusers: monge verify SOURCE --component diffusers:FOLDER
    --output noise --path linear_beta (DiT) or --output velocity (SiT-like), and, where it lives on
    latents, --autoencoder.
    """

    run: Positional[Path | None] = None
    """Run folder; with --component, the source of the data, as for train."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """How many samples; none: 2,000, or 400 with --quick."""
    steps: int | None = None
    """Steps of the solver, or jumps of a map; none: the run's own."""
    quick: bool = False
    """Fewer of everything: under a minute for the digits."""
    fail_above: float | None = None
    """Exit with code 3 if the sum is larger than this, in the units of the report."""
    selftest: bool = False
    """Measure the verification itself on laws that are known exactly; a few minutes."""
    component: str | None = None
    """FILE.py:NAME or PACKAGE.MODULE:NAME of a velocity field made elsewhere, or diffusers:FOLDER
    of a DiTTransformer2DModel as save_pretrained writes it."""
    output: Literal["velocity", "data", "noise", "score"] = "velocity"
    """What the component returns."""
    clock: Literal["noise", "data"] | None = None
    """What lies at the component's time 0; none: noise, or data for diffusers:."""
    time_scale: float | None = None
    """The component's time at its end; none: 1, or 1000 for diffusers:."""
    path: str = "linear"
    """The component's path: linear, trigonometric, ou, linear_beta, power:kappa=.."""
    autoencoder: str | None = None
    """The component's latents: diffusers:FOLDER, pca:dim=.., a folder, ...; none: the data."""
    out: Path | None = None
    """Folder for the report of a component, new or empty, or of an earlier one alone, which is
    replaced; by default runs/verify-NAME."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    label: str | None = None
    """One label for all rows; none: their own."""
    steps: int | None = None
    """Solver steps, or jumps of a map; none: the run's own."""
    solver: str | None = None
    """euler, midpoint, heun, rk3, rk4, dopri5:rtol=..,atol=..; of a map: its velocity is
    integrated."""
    grid: str | None = None
    """uniform:n=.., shifted:n=..,shift=.., geometric:n=..,stop=.."""
    guidance: float | None = None
    """Classifier-free guidance scale, which belongs to the way there and back alike; 1 is none."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Encode(Walk):
    """The noise that a run makes of data: through the autoencoder, then the flow backwards.

    All examples of SOURCE (as for train: a folder of any number of images, or a file of at least
    10 examples) in its order, with its labels where the run has labels; unlabelled ones go
    without. A map goes backwards if it was trained both ways, monge distil RUN --pairs
    triangle:both=true. How far the way back leads from where it started is printed.
    """

    run: Positional[Path]
    """Run folder."""
    source: Positional[str]
    """The data, as for train."""
    to: Literal["noise", "latent"] = "noise"
    """noise, or latent: what the autoencoder makes of the data, standardised."""
    limit: int | None = None
    """At most so many examples: spread over a folder, the first ones of anything else."""
    out: Path | None = None
    """File, an .npz with noise or latent, label, names; by default in RUN/encoded."""


@dataclass(frozen=True)
class Decode(Walk):
    """Data of noise or latents again: the way that monge encode went, forwards.

    With --interpolate N, N frames from each row to the next, both ends included, in a picture for
    each pair: on the sphere for noise, on a line for latents. A frame has the label of the nearer
    end.
    """

    run: Positional[Path]
    """Run folder, of the run that encoded or of another with latents of the same shape."""
    file: Positional[Path]
    """What monge encode wrote, or an .npz with an array noise or latent (N, ...)."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Only the first rows."""
    interpolate: int | None = None
    """Frames between consecutive rows."""
    final: Literal["auto", "none", "divide", "posterior_mean"] | None = None
    """After the last step."""
    out: Path | None = None
    """Folder; by default in RUN/decoded."""
    format: str | None = None
    """png, npz, csv, parquet, as for sample; several with commas; none: png for images, csv for
    tables."""


@dataclass(frozen=True)
class Export:
    """A run for programs without monge's verbs: a .pt2 program of torch, or a diffusers folder.

    pt2: the velocity v(x, t[, label]), or of a map the jump X(x, s, t[, label][, guidance]), of
    standardised latents, for batches of any size, on monge's clock (t = 0 noise, t = 1 data).
    Needs torch alone: torch.export.load(FILE).module(). Its member export.json says shapes,
    labels and domain. No member is a pickle: the one that torch pickles, the inputs it was traced
    with, is left empty.

    diffusers: a folder for DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True),
    with diffusers' Euler scheduler on its own clock (sigma = 1 - t). diffusers has no transformer
    like monge's, so the folder's modules import monge.

    Either is compared with the run before it appears: beyond 1e-5 nothing is written (exit code 3).
    """

    run: Positional[Path]
    """Run folder."""
    format: Literal["pt2", "diffusers"] = "pt2"
    """pt2 or diffusers."""
    out: Path | None = None
    """File or folder; by default in RUN/export."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Compare(Reading):
    """Compare two sets of samples with each other, or ask which is closer to a reference.

    A, B and R are whatever monge train reads (folders of images, .npz, .npy, .csv, .tsv, .parquet,
    hf:ORG/NAME, digits, target:...: all their examples are taken), or run folders, which are
    sampled. heldout:SOURCE and train:SOURCE take one side of a split. No model is needed.

    `monge compare ours/ theirs/ --reference photos/`: A and B meet the same n real examples; the
    floor is other real examples in their place; each metric tells which is closer, and the verdict
    takes all together by Holm's rule.

    `monge compare samples.csv table.csv`: whether two sets differ at all, and if that cannot be
    told, which shift would have been seen. `monge compare RUN heldout:RUN`: a run and its data.

    The numbers are biased by n, so n is equal for all: give many examples, and of R twice as many.
    """

    a: Positional[str]
    """The first set, called A."""
    b: Positional[str]
    """The second set, called B."""
    reference: str | None = None
    """Real data that A and B should resemble; none: compare A with B. A run folder stands for its
    data; of data with a split of its own, the held-out part is compared with."""
    n: Annotated[int, arg(aliases=["-n"])] = 1000
    """Examples of each set, at most, and samples to draw from a run; time grows as n^2 to n^3."""
    features: str | None = None
    """Compare images in the features of a network, too: lenet5:FILE.safetensors for grey images of
    28 or 32 pixels, resnet20:FILE.safetensors for RGB images of 32."""
    out: Path | None = None
    """Folder for comparison.json, pictures and comparison.html, new or empty, or of an earlier
    comparison alone, which is replaced."""
    fail_if_different: bool = False
    """Exit with code 3 where A and B are told apart; else 0 whenever they could be compared."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """Where runs are sampled: auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Reading):
    """Train an autoencoder alone; use it elsewhere with `monge train ... --autoencoder OUT`."""

    data: Positional[str]
    """Source of the data, as for train."""
    out: Path | None = None
    """Folder; by default runs/autoencoder-<data>-<8 hex of the settings>."""
    autoencoder: str = "auto"
    """conv:down=..,channels=..,width=..,blocks=..,kl=..,lr=.., pca:dim=.., identity, auto."""
    init_from: str | None = None
    """Fine-tune the autoencoder of this run, or of this folder."""
    flip: Literal["auto", "yes", "no"] = "auto"
    """Learn the mirror images too; auto: for fewer than 500 images in colour."""
    steps: int | None = None
    """Training steps; none: as many as pay."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Info:
    """What a run is, how far it is, and how good."""

    run: Positional[Path]
    """Run folder."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Recipes:
    """Complete named runs. `monge recipes` lists them, `monge recipes show NAME` explains."""

    action: Positional[Literal["list", "show"]] = "list"
    """What to do."""
    name: Positional[str | None] = None
    """Recipe to show."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Check:
    """Put a component of your own through the laws that monge's own obey."""

    component: Positional[str]
    """FILE.py:NAME or PACKAGE.MODULE:NAME, a class or an instance."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Cache:
    """What is cached of data and latents; removing it loses nothing that is not made again."""

    action: Positional[Literal["list", "clear"]] = "list"
    """What to do."""
    names: Positional[tuple[str, ...]] = ()
    """Entries to clear; none: all that are not in use."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True)
class Demo:
    """Train, sample and evaluate on the bundled digits: about three minutes on two cores."""

    out: Path | None = None
    """Run folder."""
    threads: int | None = None
    """CPU threads."""
    json: bool = False
    """Print the result as JSON."""


VERBS: dict[str, type] = {
    "train": Train,
    "distil": Distil,
    "sample": Sample,
    "evaluate": Evaluate,
    "verify": Verify,
    "encode": Encode,
    "decode": Decode,
    "export": Export,
    "compare": Compare,
    "autoencoder": Autoencoder,
    "info": Info,
    "recipes": Recipes,
    "check": Check,
    "cache": Cache,
    "demo": Demo,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0 if words else 2
    if words[0] in ("--version", "version"):
        from monge import __version__

        print(f"monge {__version__}")
        return 0
    as_json = "--json" in words
    try:
        with processes.together():
            return _run(words[0], words[1:])
    except UserError as error:
        print(f"error: {shown_lines(str(error))}", file=sys.stderr)
        if as_json:
            found = {"error": str(error), "exit_code": error.exit_code}
            measured = error.found if isinstance(error, CheckFailed) else {}
            print(json.dumps({**measured, **found}, indent=1, default=str))
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _run(verb: str, words: list[str]) -> int:
    if verb not in VERBS:
        raise UserError(f"unknown verb {verb!r}: {nearest(verb, VERBS)}")
    default = _starting_point(words) if verb == "train" else None
    words = _spell_none(VERBS[verb], words)
    try:
        with _heard_once():
            arguments = tyro.cli(VERBS[verb], args=words, prog=f"monge {verb}", default=default)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
        if code and "--json" in words and processes.is_main():
            message = "bad arguments, as told on standard error"
            print(json.dumps({"error": message, "exit_code": code}))
        return code
    from monge import verbs

    if not processes.is_main() and verb not in verbs.SHARED:
        return 0
    result = getattr(verbs, verb)(arguments)
    if "--json" in words and processes.is_main():
        print(json.dumps(result, indent=1, default=str))
    return result.get("exit_code", 0) if isinstance(result, dict) else 0


@contextmanager
def _heard_once() -> Iterator[None]:
    """What all processes would print alike, from the main one alone."""
    with ExitStack() as stack:
        if not processes.is_main():
            void = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(redirect_stdout(void))
            stack.enter_context(redirect_stderr(void))
        yield


def _spell_none(verb: type, words: list[str]) -> list[str]:
    """ "none" as the parser spells it, for the flags that may be left without a value."""
    hints = get_type_hints(verb)
    optional = {
        "--" + name.replace("_", "-")
        for name, hint in hints.items()
        if type(None) in get_args(hint) and "none" not in str(hint)
    }
    spelt = []
    for before, word in zip(["", *words], words, strict=False):
        flag, equals, value = word.partition("=")
        if before in optional and word.lower() == "none":
            word = "None"
        elif flag in optional and equals and value.lower() == "none":
            word = f"{flag}=None"
        spelt.append(word)
    return spelt


def _starting_point(words: list[str]) -> Train:
    """The settings that the flags change: a recipe's, then a YAML file's."""
    spec = TrainSpec()
    if name := _value(words, "--recipe"):
        from monge import recipes

        spec = recipes.find(name).SPEC
    if file := _value(words, "--config"):
        spec = from_yaml(Path(file), spec)
    # A flag for the one limit replaces the other where it came from a recipe or a file.
    if _value(words, "--minutes") and not _value(words, "--steps"):
        spec = dataclasses.replace(spec, steps=None)
    if _value(words, "--steps") and not _value(words, "--minutes"):
        spec = dataclasses.replace(spec, minutes=None)
    return Train(**dataclasses.asdict(spec))


def _value(words: list[str], flag: str) -> str | None:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None
