"""Suggests monge's flag for flags of other tools."""

from __future__ import annotations

from collections.abc import Sequence

from monge.errors import UserError, nearest
from monge.verbs.help import flags_of
from monge.verbs.table import Verb

PASSES = (
    "monge counts steps, not passes over the data: --steps N or --minutes X; one pass is the "
    "number of examples divided by --batch"
)
SOURCE = "the data is named without a flag: monge train SOURCE"
AGAIN = "run the same command again, and a run goes on where it stopped"
PRECISION = "--precision bf16|float32|float64, or auto"

ELSEWHERE: dict[str, tuple[str, ...]] = {
    "--steps": (
        *("iterations", "iters", "num-iterations", "max-steps", "num-steps", "max-train-steps"),
        *("num-inference-steps", "inference-steps", "sampling-steps", "n-steps", "nfe", "kimg"),
    ),
    "--batch": ("batch-size", "bs", "train-batch-size", "batchsize", "per-device-batch-size"),
    "--micro-batch": ("micro-batch-size", "gradient-accumulation-steps", "accumulate"),
    "--lr": ("learning-rate", "learningrate", "step-size", "eta", "base-lr", "max-lr"),
    "--schedule": ("lr-scheduler", "scheduler", "lr-schedule"),
    "--warmup": ("warmup-steps", "lr-warmup-steps", "num-warmup-steps"),
    "--weight-decay": ("wd", "adam-weight-decay", "l2"),
    "--clip": ("grad-clip", "clip-grad", "max-grad-norm", "gradient-clip", "gradient-clip-val"),
    "--ema": ("ema-decay", "ema-rate"),
    "--seed": ("random-seed", "manual-seed"),
    "--image-size": ("resolution", "img-size", "size", "imgsz", "image-resolution"),
    "--label-column": ("target", "target-column", "class-column", "labels"),
    "--label": ("class", "classes", "class-label", "class-labels", "cls"),
    "--drop": ("exclude", "ignore-columns", "drop-columns"),
    "--flip": ("random-flip", "hflip", "horizontal-flip", "mirror", "xflip"),
    "--limit": ("max-samples", "max-train-samples", "max-examples"),
    "--network": ("model", "arch", "architecture", "backbone"),
    "--autoencoder": ("vae", "tokenizer", "ae"),
    "--init-from": ("pretrained", "finetune", "fine-tune", "init", "from-checkpoint"),
    "--label-drop": ("class-dropout-prob", "cond-drop", "class-dropout", "uncond-prob"),
    "--guidance": ("cfg", "cfg-scale", "guidance-scale", "scale"),
    "--solver": ("sampler", "ode-solver", "method", "sampling-method"),
    "-n": ("num-samples", "n-samples", "samples", "number", "num-images", "count", "num"),
    "--out": (
        *("output-dir", "outdir", "out-dir", "save-dir", "output", "output-path", "logdir"),
        *("log-dir", "results-dir", "run-dir", "dest"),
    ),
    "--format": ("type", "file-type", "ext"),
    "--device": ("gpu", "gpus", "cuda", "use-cuda", "accelerator"),
    "--threads": ("workers", "num-workers", "n-jobs", "num-threads", "cpus"),
    "--save-every": ("save-interval", "checkpoint-every", "save-steps", "checkpointing-steps"),
    "--sample-every": ("sample-interval", "validation-steps", "eval-every"),
    "--log-every": ("log-interval", "logging-steps", "print-freq"),
    "--tensorboard": ("wandb", "logger", "report-to", "track"),
    "--minutes": ("time", "max-time", "time-limit", "hours"),
    "--dry-run": ("dryrun", "plan", "estimate"),
    "--features": ("feature-network", "fid", "metrics"),
}
"""Names in other tools, without dashes, by monge's flag."""

ANSWERS: dict[str, tuple[str, ...]] = {
    PASSES: ("epochs", "epoch", "num-epochs", "n-epochs", "max-epochs", "num-train-epochs"),
    SOURCE: (
        *("data", "dataset", "data-dir", "data-path", "train-data-dir", "dataset-name", "input"),
        *("source", "train", "path-to-data", "images"),
    ),
    AGAIN: ("resume", "resume-from", "resume-from-checkpoint", "continue", "ckpt", "checkpoint"),
    PRECISION: ("mixed-precision", "fp16", "bf16", "amp", "half", "dtype", "use-fp16"),
}
"""Names in other tools without a single corresponding flag, by the answer."""


def refuse_unknown(verb: Verb, words: Sequence[str]) -> None:
    """Refuse flags that the verb does not have, with the corresponding flag of monge.

    Raises:
        UserError: an unknown flag; names the first.
    """
    known = flags_of(verb)
    for word in words:
        if word == "--":
            return
        flag = word.partition("=")[0]
        if not flag.startswith("--") or flag.replace("_", "-") in known:
            continue
        raise UserError(
            f"monge {verb.name} has no option {flag}: {_hint(flag, known)}; "
            f"monge {verb.name} --help lists all"
        )


def _hint(flag: str, known: set[str]) -> str:
    name = flag.removeprefix("--").replace("_", "-").lower()
    for answer, names in ANSWERS.items():
        needs = {PASSES: "--steps", PRECISION: "--precision", AGAIN: "--steps"}.get(answer)
        if name in names and (needs is None or needs in known):
            return answer
    for ours, names in ELSEWHERE.items():
        if name in names and (ours in known or (ours == "-n" and "--n" in known)):
            return f"it is called {ours} here"
    hint = nearest(flag, known)
    return hint if hint.startswith("did you mean") else "none is like it"
