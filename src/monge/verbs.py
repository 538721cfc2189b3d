"""What each verb of the command line does: reads its arguments, calls the library, tells.

Each takes the parsed arguments and returns what ``--json`` prints. Notes go to standard error,
results to standard output; with ``--json`` standard output holds the JSON alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monge import processes, row_sharing
from monge.data.raw import shown_lines
from monge.data.reading import Reading
from monge.errors import CheckFailed, UserError
from monge.files import read_json
from monge.progress import Say, counted, quiet
from monge.runs.spec import TrainSpec

if TYPE_CHECKING:
    from monge.runs.run import Run


SHARED = ("train", "distil", "sample", "evaluate", "autoencoder", "demo")
"""The verbs that several processes share; the others are the main one's alone."""


def note(text: str) -> None:
    """A line for the person watching."""
    print(shown_lines(text), file=sys.stderr, flush=True)


def _say() -> Say:
    """Where notes go: nowhere but from the main process."""
    return note if processes.is_main() else quiet


def tell(arguments: Any, text: str) -> None:
    """A line of the result, unless JSON was asked for."""
    if processes.is_main() and not arguments.json:
        print(shown_lines(text), flush=True)


def train(arguments: Any) -> dict[str, Any]:
    """Train or continue a run."""
    from monge.runs.rehearse import rehearse
    from monge.runs.train import train as train_run

    spec = _spec_of(arguments)
    _need_data_of_recipe(arguments)
    if arguments.dry_run:
        return {"dry_run": True, **rehearse(spec, _say())}
    run = train_run(spec, out=arguments.out, say=_say())
    return _trained(arguments, run)


def distil(arguments: Any) -> dict[str, Any]:
    """Distil a run into a map, or go on."""
    from monge.runs.distil import distil as distil_run

    skipped = ("run", "out", "json")
    names = [f.name for f in dataclasses.fields(arguments) if f.name not in skipped]
    settings = {name: getattr(arguments, name) for name in names}
    # Flags that are not given leave what the teacher had.
    settings |= {name: settings[name] or None for name in ("compile", "shard")}
    run = distil_run(arguments.run, arguments.out, say=_say(), **settings)
    return _trained(arguments, run)


def _trained(arguments: Any, run: Run) -> dict[str, Any]:
    """What training came to, and what comes next."""
    tell(arguments, f"run      {run.folder}")
    found: dict[str, Any] = {"run": str(run.folder), **_cost(run.folder)}
    steps = ""
    if run.spec.is_map:
        found["map_errors"] = _tell_map_errors(arguments, run)
        steps = " --steps 2"
    tell(arguments, f"report   {run.folder / 'report.html'}")
    tell(arguments, f"next     monge sample {run.folder}{steps}   monge evaluate {run.folder}")
    return found


def _tell_map_errors(arguments: Any, run: Run) -> list[dict[str, Any]]:
    """What a map's jumps leave, for each number of them."""
    from monge.runs import map_errors

    kept = map_errors.read(run.folder)
    if kept is None:
        return []
    tell(arguments, f"error    against {kept['reference']}, per latent coordinate:")
    for e in kept["errors"]:
        parts = [100 * e[key] for key in ("relative", "median", "quantile90")]
        at = f", guidance {e['guidance']:g}" if e["guidance"] != 1 else ""
        tell(
            arguments,
            f"  {counted(e['steps'], 'jump'):>8}{at}  rms {e['rms']:.3f}, "
            f"{parts[0]:.2f} % of the squared way (median {parts[1]:.2f}, 90 % quantile "
            f"{parts[2]:.2f})",
        )
    if kept["velocity_loss"] is not None:
        tell(
            arguments,
            f"  that velocity loses {kept['velocity_loss']:.3g} on held-out data; how good it is, "
            f"monge evaluate {run.folder} says",
        )
    return kept["errors"]


def _need_data_of_recipe(arguments: Any) -> None:
    """Say which file a recipe means, where its data is not bundled and was not given."""
    if arguments.recipe is None:
        return
    from monge import recipes as book

    recipe = book.find(arguments.recipe)
    origin = getattr(recipe, "ORIGIN", None)
    if origin and arguments.data == recipe.SPEC.data and not Path(arguments.data).exists():
        raise UserError(
            f"recipe {arguments.recipe} needs the file {arguments.data}, which is not here: "
            f"{origin}. Then: monge train PATH/{arguments.data} --recipe {arguments.recipe}"
        )


def _spec_of(arguments: Any) -> TrainSpec:
    names = [f.name for f in dataclasses.fields(TrainSpec)]
    return TrainSpec(**{name: getattr(arguments, name) for name in names})


def _cost(folder: Path) -> dict[str, Any]:
    path = folder / "cost.json"
    return read_json(path) if path.exists() else {}


def _load(arguments: Any) -> Run:
    from monge.runs.restoring import set_threads
    from monge.runs.run import Run

    set_threads(arguments.threads)
    return Run.load(arguments.run, arguments.device)


def _sampling(arguments: Any) -> dict[str, Any]:
    names = ("steps", "solver", "grid", "guidance", "final", "seed")
    return {name: getattr(arguments, name) for name in names}


def sample(arguments: Any) -> dict[str, Any]:
    """Draw samples and write them."""
    run = _load(arguments)
    with row_sharing.lead(*run.tasks()) as leading:
        return _sample(arguments, run) if leading else {}


def _sample(arguments: Any, run: Run) -> dict[str, Any]:
    from monge import ownership
    from monge.components import build
    from monge.runs import jumps, map_errors

    if arguments.out is not None:
        ownership.refuse_foreign(arguments.out)
    formats = run.check_formats(arguments.format.split(",") if arguments.format else None)
    labels = arguments.label.split(",") if arguments.label else None
    start = time.monotonic()
    samples = run.sample(arguments.n, labels, condition=arguments.condition, **_sampling(arguments))
    seconds = time.monotonic() - start
    # Other settings, another folder: old and new pictures are never mixed.
    settings = [arguments.n, labels, *_sampling(arguments).values()]
    settings += [] if arguments.condition is None else [arguments.condition]
    mark = hashlib.sha256(repr(settings).encode()).hexdigest()[:6]
    folder = arguments.out or run.folder / "samples" / f"seed-{arguments.seed}-{mark}"
    written = samples.save(folder, formats)
    info = samples.info
    # Of a table the rows, of images the picture of all.
    shown = written[0] if run.facts["kind"] == "image" else written[-1]
    tell(arguments, f"{len(samples)} samples in {seconds:.1f} s: {shown}")
    tell(
        arguments,
        f"{info['solver']}, {counted(info['steps'], 'step')}, "
        f"{counted(info['evaluations_per_sample'], 'evaluation')} per sample, "
        f"guidance {info['guidance']:g}, final map {info['final']}, "
        f"times {info['domain'][0]:g} to {info['domain'][1]:g}, "
        f"source gap {info['source_gap']:.2g}",
    )
    found = {"files": [str(path) for path in written], "seconds": seconds, **info}
    if info["solver"] == jumps.SOLVER:
        grid = build("grid", info["grid"])
        error = map_errors.expected(run.folder, grid, info["guidance"])
        told = (
            f"no error was measured for {counted(info['steps'], 'jump')}, grid {grid}"
            if error is None
            else map_errors.in_words(error)
        )
        if error and error["guidance"] != info["guidance"]:
            told += f", at guidance {error['guidance']:g}"
        tell(arguments, told)
        found["expected_error"] = error
    return found


def evaluate(arguments: Any) -> dict[str, Any]:
    """Measure a run."""
    run = _load(arguments)
    with row_sharing.lead(*run.tasks()) as leading:
        return _evaluate(arguments, run) if leading else {}


def _evaluate(arguments: Any, run: Run) -> dict[str, Any]:
    from monge.runs import step_curve
    from monge.runs.density import in_words
    from monge.runs.evaluate import evaluate_run

    if arguments.n < 20:
        raise UserError(f"an evaluation needs at least 20 samples, not {arguments.n}")
    steps = step_curve.parse_steps(arguments.steps)
    sampling = {**_sampling(arguments), "steps": steps[0] if len(steps) == 1 else None}
    note(f"sampling {arguments.n} and evaluating")
    result = evaluate_run(run, arguments.n, features=arguments.features, **sampling)
    tell(arguments, result.text())
    for row in [row for row in result.table if "network" in row.protocol][:1]:
        settings = "; ".join(f"{key} {value}" for key, value in row.protocol.items())
        tell(arguments, f"{row.name}: {settings}.")
    found = read_json(run.folder / "evaluation" / "evaluation.json")
    if found["density"]:
        tell(arguments, in_words(found["density"]))
    if len(steps) > 1:
        found["by_steps"] = _by_steps(arguments, run, steps)
    tell(arguments, f"report   {run.folder / 'report.html'}")
    return found


def _by_steps(arguments: Any, run: Run, steps: list[int]) -> dict[str, Any]:
    """Quality against evaluations."""
    from monge.metrics.feature_sources import load_network
    from monge.runs import step_curve
    from monge.runs.report import write_report

    network = None if arguments.features is None else load_network(arguments.features)
    how = {"seed": arguments.seed, "guidance": arguments.guidance, "network": network}
    note(f"sampling with {', '.join(map(str, steps))} steps")
    found = step_curve.step_curve(run, steps, arguments.n, **how)
    tell(arguments, "\nQuality by number of evaluations")
    tell(arguments, step_curve.text(found))
    write_report(run.folder)
    return found


def verify(arguments: Any) -> dict[str, Any]:
    """Take an error apart: of a run, with its report renewed, or of a component."""
    from monge.runs.verify import text

    if arguments.selftest:
        return _selftest(arguments)
    if arguments.run is None:
        raise UserError("say which run: monge verify RUN, or --selftest")
    if arguments.component is None:
        if arguments.autoencoder is not None:
            raise UserError("a run has its own autoencoder: --autoencoder goes with --component")
        from monge.runs.verify import verify_run

        run = _load(arguments)
        how = {"quick": arguments.quick, "say": note, **_sampling(arguments)}
        report, page = verify_run(run, arguments.n, **how), run.folder / "report.html"
    else:
        report, page = _verify_component(arguments)
    tell(arguments, text(report))
    tell(arguments, f"report   {page}")
    if report["violations"]:
        raise CheckFailed("the budget is violated: " + "; ".join(report["violations"]), report)
    most = arguments.fail_above
    if most is not None and report["sum"]["value"] > most:
        raise CheckFailed(f"the sum {report['sum']['value']:.4g} is above {most:g}", report)
    return report


def _selftest(arguments: Any) -> dict[str, Any]:
    from monge.runs.restoring import set_threads
    from monge.verify.selftest import GROUPS

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


def _verify_component(arguments: Any) -> tuple[dict[str, Any], Path]:
    from monge.data import sources
    from monge.loading import load
    from monge.runs.restoring import set_threads
    from monge.runs.verify import verify_component
    from monge.verify.from_diffusers import LEVELS, load_transformer

    set_threads(arguments.threads)
    if arguments.guidance is not None or arguments.final is not None:
        raise UserError("a component is sampled as it is: leave out --guidance and --final")
    scheme, _, folder = arguments.component.partition(":")
    if scheme == "diffusers":
        component, name = load_transformer(folder, arguments.output), Path(folder).name
        clock, time_scale = "data", float(LEVELS)
    else:
        component, name = load(arguments.component), arguments.component.rpartition(":")[2]
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
    )
    return report, out / "report.html"


def encode(arguments: Any) -> dict[str, Any]:
    """Data to noise or latents."""
    from monge.runs.export import refuse_existing

    run = _load(arguments)
    name = Path(arguments.source).stem or "data"
    out = arguments.out or run.folder / "encoded" / f"{name}-{arguments.to}.npz"
    refuse_existing(out)
    found = run.encode(
        arguments.source, arguments.to, limit=arguments.limit, say=note, **_walk(arguments)
    )
    found.save(out)
    tell(arguments, f"{len(found)} rows of {arguments.to}: {out}")
    if "round_trip_rms" in found.info:
        way = f"{found.info['solver']}, {found.info['steps']} steps each way"
        tell(arguments, f"back again: {found.info['round_trip_rms']:.2g} rms per latent ({way})")
    return {"file": str(out), "n": len(found), **found.info}


def decode(arguments: Any) -> dict[str, Any]:
    """Noise or latents to data."""
    from monge.runs import encoding, images
    from monge.runs.export import refuse_existing

    run = _load(arguments)
    formats = run.check_formats(arguments.format.split(",") if arguments.format else None)
    found = encoding.load(arguments.file, run)
    if arguments.n is not None:
        if arguments.n < 1:
            raise UserError(f"the number of rows must be at least 1, not {arguments.n}")
        found = found[: arguments.n]
    between, settings = arguments.interpolate, {"final": arguments.final, **_walk(arguments)}
    if between is not None and run.facts["kind"] != "image":
        raise UserError("--interpolate draws pictures, and this run's data are rows of a table")
    what = "" if between is None else "-between"
    out = arguments.out or run.folder / "decoded" / f"{arguments.file.stem}{what}"
    refuse_existing(out)
    if between is None:
        drawn = run.decode(found, **settings)
        written, info = drawn.save(out, formats), drawn.info
    else:
        pairs = run.interpolate(found, between, **settings)
        info = pairs[0].info
        digits = len(str(len(pairs)))
        written = [
            images.save_png(pair.grid(between), out / f"between-{k:0{digits}d}-{k + 1}.png")
            for k, pair in enumerate(pairs)
        ]
    way = f" ({info['solver']}, {info['steps']} steps, guidance {info['guidance']:g})"
    tell(
        arguments,
        f"{len(found)} rows of {found.kind} decoded{way if found.kind == 'noise' else ''}: "
        f"{written[0]}",
    )
    files = {"files": [str(path) for path in written], "kind": found.kind}
    return {**info, **files, "n": len(found)}


def _walk(arguments: Any) -> dict[str, Any]:
    return {
        name: getattr(arguments, name) for name in ("label", "steps", "solver", "grid", "guidance")
    }


def export(arguments: Any) -> dict[str, Any]:
    """A run in another format."""
    from monge.runs.export import export_run
    from monge.runs.restoring import set_threads
    from monge.runs.run import Run

    set_threads(arguments.threads)
    run = Run.load(arguments.run, "cpu")
    out, found = export_run(run, arguments.format, arguments.out)
    tell(arguments, f"exported {out}")
    tell(arguments, f"differs from the run by {found['largest_difference']:.1e} at most")
    return {"file": str(out), **found}


def compare(arguments: Any) -> dict[str, Any]:
    """Compare two sets of samples."""
    from monge.runs.compare import compare_sources
    from monge.runs.restoring import set_threads

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
        device=arguments.device,
        out=arguments.out,
        say=note,
    )
    for name, known in found["card"]["sets"].items():
        tell(arguments, f"{name}: {known['taken']}, {known['source']}")
    tell(arguments, result.text())
    tell(arguments, f"repeat   {found['card']['command']}")
    if arguments.out is not None:
        tell(arguments, f"page     {arguments.out / 'comparison.html'}")
    failed = arguments.fail_if_different and result.verdict.differs
    return {**found, "exit_code": 3} if failed else found


def autoencoder(arguments: Any) -> dict[str, Any]:
    """Train an autoencoder alone."""
    from monge.runs.train import train_autoencoder

    shared = ("data", "autoencoder", "init_from", "flip", "seed", "device", "threads")
    names = [f.name for f in dataclasses.fields(Reading)]
    spec = TrainSpec(
        autoencoder_steps=arguments.steps,
        **{name: getattr(arguments, name) for name in (*names, *shared)},
    )
    folder, quality = train_autoencoder(spec, arguments.out, _say())
    tell(arguments, f"autoencoder  {folder}")
    tell(arguments, f"next         monge train SOURCE --autoencoder {folder}")
    return {"autoencoder": str(folder), **quality}


def info(arguments: Any) -> dict[str, Any]:
    """What a run is."""
    from monge.runs.info import describe

    facts = describe(arguments.run)
    width = max(map(len, facts))
    for key, value in facts.items():
        tell(arguments, f"{key.ljust(width)}  {value}")
    return facts


def recipes(arguments: Any) -> Any:
    """List the recipes or show one."""
    from monge import recipes as book

    if arguments.action == "list":
        listed = {name: (book.find(name).__doc__ or "").partition("\n")[0] for name in book.NAMES}
        for name, text in listed.items():
            tell(arguments, f"{name:10} {text}")
        return listed
    if arguments.name is None:
        raise UserError(f"which recipe? monge recipes show NAME: {', '.join(book.NAMES)}")
    recipe = book.find(arguments.name)
    tell(arguments, (recipe.__doc__ or "").strip())
    changed = {
        f.name: getattr(recipe.SPEC, f.name)
        for f in dataclasses.fields(TrainSpec)
        if getattr(recipe.SPEC, f.name) != f.default
    }
    tell(arguments, "\nsettings that differ from the defaults:")
    for key, value in changed.items():
        tell(arguments, f"  {key}: {value}")
    return {"name": arguments.name, "settings": changed}


def cache(arguments: Any) -> Any:
    """What the cache holds, or clear it."""
    from monge.data import cache as cached
    from monge.progress import size

    if arguments.action == "clear":
        removed, busy = cached.clear(list(arguments.names) or None)
        tell(arguments, f"removed {len(removed)} entries from {cached.root()}")
        for name in busy:
            tell(arguments, f"left, it is in use: {name}")
        for name in cached.foreign():
            tell(arguments, f"left, it is not monge's: {name}")
        return {"removed": removed, "in_use": busy}
    found = cached.entries()
    for e in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used))
        count = "-" if e.n is None else str(e.n)
        tell(arguments, f"{e.kind:8} {e.name:32} {count:>9} {size(e.bytes):>9}  {used}  {e.source}")
    total = sum(e.bytes for e in found)
    tell(arguments, f"{len(found)} entries, {size(total)}, in {cached.root()}")
    return [dataclasses.asdict(e) for e in found]


def check(arguments: Any) -> Any:
    """Put a component through the conformance laws."""
    from monge import conformance

    report = conformance.check(conformance.load(arguments.component))
    tell(arguments, report.text())
    if not report.passed:
        raise CheckFailed(f"{arguments.component} breaks {report.n_failed} laws")
    return report.to_json()


def demo(arguments: Any) -> dict[str, Any]:
    """Train, sample and evaluate the digits recipe."""
    from monge import recipes as book
    from monge.runs.train import train as train_run

    start = time.monotonic()
    spec = dataclasses.replace(book.find("digits").SPEC, threads=arguments.threads)
    run = train_run(spec, out=arguments.out, say=_say())
    with row_sharing.lead(*run.tasks()) as leading:
        return _demo(arguments, run, start) if leading else {}


def _demo(arguments: Any, run: Run, start: float) -> dict[str, Any]:
    from monge.runs.evaluate import evaluate_run

    note("sampling and evaluating")
    grid = run.sample(100, "all").save(run.folder / "samples" / "seed-0", formats=())[0]
    result = evaluate_run(run)
    tell(arguments, result.text())
    tell(arguments, f"\npictures  {grid}")
    tell(arguments, f"report    {run.folder / 'report.html'}")
    tell(arguments, f"done in {time.monotonic() - start:.0f} s")
    seconds = time.monotonic() - start
    metrics = {row.name: row.value for row in result.table}
    floors = {row.name: row.floor for row in result.table}
    files = {"run": str(run.folder), "grid": str(grid)}
    return {**files, "seconds": seconds, "metrics": metrics, "floors": floors, **_cost(run.folder)}
