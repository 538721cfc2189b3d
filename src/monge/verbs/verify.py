"""`monge verify`: decompose the Wasserstein-2 error of a run or component into its sources."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from monge.errors import CheckFailed, UserError
from monge.runs.spec import TrainSpec
from monge.verbs.arguments import Sampler, load_run, sampling
from monge.verbs.shown import note, tell, width


@dataclass(frozen=True)
class Verify(Sampler):
    """Decompose the Wasserstein-2 error of the samples into its sources, and advise what to change.

    Each part of the sampler is compared with a better one from the same noise: solver, guidance,
    source, velocity, early stopping, autoencoder. The sum of the errors is an upper bound of the
    distance to the data if the true law is known (monge train target:...), else an estimate.

    A velocity field of your own: monge verify SOURCE --component FILE.py:NAME, a callable f(x, t)
    or f(x, t, label) on the data of SOURCE; give its --clock and --output.

    A class-conditional transformer of diffusers: monge verify SOURCE --component diffusers:FOLDER
    --output noise --path linear_beta (DiT) or --output velocity (SiT-like), and --autoencoder if it
    works on latents.
    """

    run: Positional[Path | None] = None
    """Run folder; with --component, the source of the data, as for train."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """How many samples; none: 2,000, or 400 with --quick."""
    steps: int | None = None
    """Steps of the solver, or jumps of a map; none: the run's own."""
    quick: bool = False
    """Fewer samples and steps: under a minute for the digits."""
    fail_above: float | None = None
    """Exit with code 3 if the sum is larger than this, in the units of the report."""
    selftest: bool = False
    """Test the verification itself on exactly known laws; takes a few minutes."""
    component: str | None = None
    """FILE.py:NAME or PACKAGE.MODULE:NAME of a velocity field of your own, or diffusers:FOLDER of a
    DiTTransformer2DModel written by save_pretrained."""
    output: Literal["velocity", "data", "noise", "score"] = "velocity"
    """Quantity that the component returns."""
    clock: Literal["noise", "data"] | None = None
    """End at the component's time 0; none: noise, or data for diffusers:."""
    time_scale: float | None = None
    """The component's time at the other end; none: 1, or 1000 for diffusers:."""
    path: str = "linear"
    """The component's path: linear, trigonometric, ou, linear_beta, power:kappa=.."""
    autoencoder: str | None = None
    """The component's latents: diffusers:FOLDER, pca:dim=.., a folder, ...; none: the data."""
    out: Path | None = None
    """Folder for the report of a component: new, empty, or with only an earlier report, which is
    replaced; by default runs/verify-NAME."""


def act(arguments: Verify) -> dict[str, Any]:
    """Decompose the error of a run, whose report is written again, or of a component."""
    from monge.verification.text import text

    if arguments.selftest:
        return _selftest(arguments)
    if arguments.run is None:
        raise UserError("name the run: monge verify RUN, or give --selftest")
    if arguments.component is None:
        if arguments.autoencoder is not None:
            raise UserError("a run has its own autoencoder: --autoencoder goes with --component")
        from monge.verification.verify import verify_run

        run = load_run(arguments.run, arguments.device, arguments.threads)
        if arguments.fail_above is not None and (why := run.learned.without_budget()):
            raise UserError(f"{why}: leave out --fail-above")
        how = {"quick": arguments.quick, "say": note, **sampling(arguments, arguments.steps)}
        report, page = verify_run(run, arguments.n, **how), run.folder / "report.html"
    else:
        report, page = _verify_component(arguments, arguments.component)
    tell(arguments, text(report, width()))
    tell(arguments, f"report   {page}")
    if report["violations"]:
        raise CheckFailed("a requirement is violated: " + "; ".join(report["violations"]), report)
    most = arguments.fail_above
    if most is not None and report["sum"]["value"] > most:
        raise CheckFailed(f"the sum {report['sum']['value']:.4g} is above {most:g}", report)
    return report


def _selftest(arguments: Verify) -> dict[str, Any]:
    from monge.runs.restore import set_threads
    from monge.verification.selftest import GROUPS

    set_threads(arguments.threads)
    checks = []
    for name, group in GROUPS.items():
        note(name)
        for check in group(not arguments.quick):
            tell(arguments, check.text)
            checks.append(check)
    failed = [check.text for check in checks if not check.holds]
    found = {"checks": [dataclasses.asdict(check) for check in checks]}
    if failed:
        why = f"{len(failed)} of {len(checks)} checks do not hold: {failed[0]}"
        raise CheckFailed(why, found)
    return found


def _verify_component(arguments: Verify, text: str) -> tuple[dict[str, Any], Path]:
    from monge.data import sources
    from monge.runs.restore import set_threads
    from monge.system.loading import load
    from monge.verification.from_diffusers import LEVELS, load_transformer
    from monge.verification.verify import verify_component

    set_threads(arguments.threads)
    if arguments.guidance is not None or arguments.final is not None:
        raise UserError("a component takes no --guidance and no --final: leave them out")
    scheme, _, folder = text.partition(":")
    if scheme == "diffusers":
        component, name = load_transformer(folder, arguments.output), Path(folder).name
        clock, time_scale = "data", float(LEVELS)
    else:
        component, name = load(text), text.rpartition(":")[2]
        clock, time_scale = "noise", 1.0
    out = arguments.out or Path("runs") / f"verify-{name}"
    grid = arguments.grid or "uniform:n=20"
    report = verify_component(
        component,
        sources.load(str(arguments.run), TrainSpec(data=str(arguments.run)), note),
        out,
        path=arguments.path,
        clock=arguments.clock or clock,
        output=arguments.output,
        time_scale=arguments.time_scale or time_scale,
        autoencoder=arguments.autoencoder,
        solver=arguments.solver or "heun",
        grid=grid,
        steps=arguments.steps,
        n=arguments.n,
        quick=arguments.quick,
        seed=arguments.seed,
        say=note,
        component=text,
    )
    return report, out / "report.html"
