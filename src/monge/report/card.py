"""The model card of a run: README.md, as the Hugging Face hub reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from monge.errors import UserError
from monge.learned import kind_of
from monge.metrics.table import SIGNS
from monge.report.page import DAMAGED, count, number, read_facts
from monge.report.sections.measured import rows_of
from monge.runs.folder import read_config
from monge.runs.layout import CONFIG, DATA, EVALUATION, QUALITY
from monge.system.files import write_atomic

PICTURES = ("evaluation/by_label.png", "evaluation/samples.png")


def write_card(folder: Path) -> Path:
    """Write ``README.md`` from the files of a run folder; what is absent is left out.

    Raises:
        UserError: the folder does not exist or cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no such run folder: {folder}")
    parts = []
    for part in (_front, _what, _use, _quality, _limits, _licence):
        try:
            parts.append(part(folder))
        except DAMAGED as error:
            what = str(error).replace(f"{folder}/", "")
            parts.append(f"*A file that belongs here cannot be read: {_plain(what)}*")
    return write_atomic(folder / "README.md", "\n\n".join(filter(None, parts)) + "\n")


def _front(folder: Path) -> str:
    tags = ["monge", "flow-matching", "generative-model"]
    values: dict[str, Any] = {"library_name": "monge", "tags": tags}
    if _data(folder).get("kind") == "image":
        values["pipeline_tag"] = "unconditional-image-generation"
    return f"---\n{yaml.safe_dump(values, sort_keys=False)}---"


def _what(folder: Path) -> str:
    spec = read_config(folder) if (folder / CONFIG).exists() else None
    objective = "flow_matching" if spec is None else spec.objective
    lines = [f"# {_name(folder)}", kind_of(objective).summary]
    pictures = [name for name in PICTURES if (folder / name).exists()]
    lines += [f"![Samples]({name})" for name in pictures[:1]]
    if data := _data(folder):
        shape = " × ".join(map(str, data.get("shape") or []))
        names = ", ".join(map(str, data.get("label_names") or []))
        examples = {"image": "images", "table": "rows"}.get(str(data.get("kind")), "examples")
        lines.append(
            f"**Data:** {_plain(data.get('name'))}, {number(data.get('n_train'))} training and "
            f"{number(data.get('n_heldout'))} held-out {examples} of shape {_plain(shape)}"
            + (f"; labels {_plain(names)}." if names else ".")
        )
    if spec is not None:
        learned = f"objective {_code(spec.objective)}, " if kind_of(objective).few_steps else ""
        lines.append(
            f"**Model:** {learned}network {_code(spec.network)}, path {_code(spec.path)}, output "
            f"{_code(spec.output)}, autoencoder {_code(spec.autoencoder)}. All settings are in "
            "`config.yaml`."
        )
    return "\n\n".join(lines)


def _use(folder: Path) -> str:
    name = _name(folder)
    labels = _data(folder).get("label_names")
    asked = f", label={json.dumps(str(labels[0]))}" if labels else ""
    return f"""## Use

```python
import monge

run = monge.load("{name}")  # this folder
samples = run.sample(16{asked})
samples.grid().save("samples.png")
```

On the command line: `monge sample {name}`. What it is and how good: `monge info {name}`, and
`report.html` in this folder."""


def _quality(folder: Path) -> str:
    evaluation = read_facts(folder, EVALUATION)
    if evaluation is None:
        return "## Quality\n\nNot measured yet: `monge evaluate` with this folder does it."
    rows = rows_of(evaluation)
    names = list(dict.fromkeys(name for row in rows for name in row.baselines))
    head = ["", "this model", "95 % interval", "floor", *map(_plain, names), "n"]
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    for row in rows:
        low, high = row.interval
        unit = f" {_plain(row.unit)}" if row.unit else ""
        cells = [f"{SIGNS[row.better]} {_plain(row.name)}", f"**{number(row.value)}**{unit}"]
        cells += [f"{number(low)} to {number(high)}", number(row.floor)]
        cells += [number(row.baselines.get(name)) for name in names]
        lines.append(_line([*cells, number(row.n)]))
    legend = (
        "↓ lower, ↑ higher is better, ≈ as near to the floor as possible. The floor is what the "
        "same estimator gives for two real samples of equal size."
    )
    verdicts = "\n".join(f"- {_plain(line)}" for line in evaluation.get("verdicts") or [])
    sampling = _sampling(evaluation.get("sampling") or {})
    return "\n\n".join(filter(None, ["## Quality", verdicts, "\n".join(lines), legend, sampling]))


def _sampling(sampling: Mapping[str, Any]) -> str:
    if not sampling:
        return ""
    get = sampling.get
    return (
        f"Measured on {number(get('n'))} samples, seed {_plain(get('seed'))}, solver "
        f"{_code(get('solver'))} with {count(get('evaluations_per_sample'))} network evaluations "
        f"per sample, guidance {count(get('guidance'))}."
    )


def _limits(folder: Path) -> str:
    lines = [
        "Samples follow the training data, with its gaps and its biases; nothing beyond it can be "
        "expected.",
        "The numbers compare with held-out data of the same source by the estimators named. They "
        "say nothing about other data or other uses.",
    ]
    lines.append(
        "No privacy is promised. Where no copies of training examples were found, single ones may "
        "exist, and something may be learned of an example that is not copied."
    )
    quality = read_facts(folder, QUALITY) or {}
    if quality.get("psnr_db") is not None:
        lines.append(
            "Samples leave the autoencoder's decoder, which reconstructs held-out data with a "
            f"PSNR of {number(quality['psnr_db'])} dB."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _licence(folder: Path) -> str:
    return "## Licence\n\nNot stated by the author."


def _data(folder: Path) -> dict[str, Any]:
    return read_facts(folder, DATA) or {}


def _name(folder: Path) -> str:
    return folder.resolve().name


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _code(value: object) -> str:
    """A value as Markdown code, on one line."""
    return "`" + " ".join(str(value).replace("`", "'").split()) + "`"


def _plain(value: object) -> str:
    """Text that Markdown and HTML take literally, on one line."""
    return re.sub(r"([\\`*_~$\[\]<>|&#])", r"\\\1", " ".join(str(value).split()))
