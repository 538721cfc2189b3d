"""Schemas of the JSON files of a run folder; `read` checks a file against its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monge.runs import layout
from monge.system.schema import (
    Schema,
    anything,
    fields,
    listed,
    maybe,
    number,
    one_of,
    portable,
    read_json,
    scalar,
    table,
    text,
    whole,
)

SIDE = whole(1, 2**24)
"""Length of an axis of an example or of its latent."""

EXAMPLES = whole(0, 2**48)

DATA: Schema = fields(
    {
        "text": maybe(text),
        "kind": one_of("image", "table"),
        "shape": listed(SIDE, 1, 3),
        "label_names": listed(text),
        "label_counts": listed(EXAMPLES),
        "fingerprint": text,
    },
    {
        "name": text,
        "n_train": EXAMPLES,
        "n_heldout": EXAMPLES,
        "n_vector": whole(0, 2**24),
        "map_domain": listed(number(0, 1), 2, 2),
    },
)

COST: Schema = table(maybe(number(0)))

ENVIRONMENT: Schema = table(scalar)

CHANGES: Schema = listed(
    fields({"date": text, "changed": table(fields({"from": scalar, "to": scalar}))})
)

BEST: Schema = fields({"step": whole(), "score": number()}, {"relative": portable, "n": whole(1)})

GUIDED_ERROR: Schema = fields(
    {
        "steps": whole(1),
        "rms": number(0),
        "relative": number(0),
        "median": number(0),
        "quantile90": number(0),
        "guidance": number(),
    }
)

MAP_ERROR: Schema = fields(
    {"format_version": whole()},
    {
        "n": whole(1),
        "reference": text,
        "velocity_loss": maybe(number()),
        "errors": listed(GUIDED_ERROR, 1),
    },
)

STATISTICS = listed(number())

QUALITY: Schema = fields(
    {"latent_shape": listed(SIDE, 1, 3)},
    {
        "kind": text,
        "numbers": whole(1),
        "data_numbers": whole(1),
        "latent_mean": STATISTICS,
        "latent_std": STATISTICS,
        "rmse": maybe(number(0)),
        "psnr_db": maybe(number()),
        "pca_psnr_db": maybe(number()),
        "n": whole(),
        "home": maybe(
            fields(
                {"rmse": number(0)},
                {
                    "psnr_db": maybe(number()),
                    "latent_mean": maybe(STATISTICS),
                    "latent_std": maybe(STATISTICS),
                    "n": maybe(whole()),
                },
            )
        ),
    },
)

ROW: Schema = fields(
    {
        "name": text,
        "value": portable,
        "interval": listed(portable, 2, 2),
        "floor": portable,
        "baselines": table(portable),
        "n": whole(1),
    },
    {
        "interval_method": text,
        "protocol": table(scalar),
        "unit": text,
        "better": text,
        "p_value": maybe(number(0, 1)),
        "group": text,
        "note": text,
    },
)

EVALUATION: Schema = fields(
    {"table": fields({"format_version": whole(), "rows": listed(ROW)})},
    {
        "verdicts": listed(text),
        "labels": maybe(fields({})),
        "columns": maybe(anything),
        "tabular": maybe(
            fields(
                {},
                {
                    "giveaways": listed(fields({"column": text, "auc_lost": number()})),
                    "shapes": listed(fields({"column": text, "similarity": number()})),
                    "trends": listed(fields({"pair": text, "similarity": number()})),
                },
            )
        ),
        "next": listed(fields({"why": text, "command": text})),
        "density": maybe(fields({})),
        "card": maybe(fields({})),
    },
)

MEASURED = fields({"energy": portable, "auc": portable, "frechet": portable})

STEPS: Schema = fields(
    {
        "points": listed(
            fields(
                {
                    "who": text,
                    "how": text,
                    "evaluations": number(0),
                    "energy": portable,
                    "auc": portable,
                    "frechet": portable,
                },
                {"features": portable},
            )
        ),
        "floor": MEASURED,
        "floor_std": MEASURED,
    },
    {"n": whole(1), "seed": whole(), "guidance": number(), "withheld": maybe(text)},
)

PLAN: Schema = fields(
    {
        "minutes": number(0),
        "steps": maybe(whole(1)),
        "autoencoder_steps": maybe(whole()),
    }
)

CHAIN: Schema = fields(
    {
        "blocks": listed(
            fields(
                {
                    "size": maybe(number(0)),
                    "clock": listed(number()),
                    "moved": number(0),
                    "ratio": portable,
                    "steps": whole(),
                    "train_s": number(0),
                }
            )
        )
    }
)

ANYTIME: Schema = fields({})

TEXTS: Schema = fields(
    {name: listed(text, 2, 2) for name in ("ends", "range", "mean", "deviation")}
)

COLUMNS: Schema = fields(
    {
        "n_samples": whole(1),
        "n_heldout": whole(1),
        "columns": listed(fields({"name": text, "kind": text}, {"texts": TEXTS})),
    },
    {
        "associations": maybe(
            fields({"names": listed(text), "samples": anything, "heldout": anything})
        )
    },
)

PLANE: Schema = fields(
    {"names": listed(text, 2, 2), "t": listed(number()), "walks": anything},
    {"density": maybe(fields({"model": anything, "truth": anything}))},
)

VERIFY: Schema = fields(
    {"terms": listed(fields({"name": text, "value": portable}))},
    {
        "sum": fields({"value": portable, "stderr": portable}),
        "units": text,
        "advice": fields({"text": text}),
        "violations": listed(text),
    },
)

PLACES: Schema = table(text)

DATA_REPORT: Schema = fields({})

OF_FILE: dict[str, Schema] = {
    layout.DATA: DATA,
    layout.DATA_REPORT: DATA_REPORT,
    layout.PLACES: PLACES,
    layout.COST: COST,
    layout.ENVIRONMENT: ENVIRONMENT,
    layout.CHANGES: CHANGES,
    layout.BEST: BEST,
    layout.MAP_ERROR: MAP_ERROR,
    layout.QUALITY: QUALITY,
    layout.EVALUATION: EVALUATION,
    layout.PLAN: PLAN,
    layout.CHAIN: CHAIN,
    layout.ANYTIME: ANYTIME,
    layout.STEPS: STEPS,
    layout.COLUMNS: COLUMNS,
    layout.PLANE: PLANE,
    layout.VERIFY: VERIFY,
}
"""The schema of each file, by the file's name."""

MADE_BY = {
    layout.EVALUATION: "`monge evaluate` writes it anew",
    layout.STEPS: "`monge evaluate --steps` writes it anew",
    layout.ANYTIME: "`monge evaluate --blocks` writes it anew",
    layout.PLAN: "remove it to plan the run again",
    layout.COLUMNS: "`monge evaluate` writes it anew",
    layout.PLANE: "`monge evaluate` writes it anew",
    layout.VERIFY: "`monge verify` writes it anew",
    layout.COST: "remove it, and only the account of the time is lost",
    layout.ENVIRONMENT: "remove it, and only the account of the machine is lost",
    layout.CHANGES: "remove it, and only the account of changed settings is lost",
    layout.QUALITY: "remove it, and only the measured quality of the autoencoder is lost",
    layout.MAP_ERROR: "the run's `monge distil` or `monge train` command writes it anew",
}
"""How to restore a damaged file, by the file's name."""

AGAIN = "the run's `monge train` command, given again, writes it anew"


def read(folder: Path, name: str) -> Any:
    """Read a JSON file of a run folder.

    Raises:
        UserError: a missing or damaged file, or a value that does not fit, with file and key.
    """
    return read_json(folder / name, OF_FILE[name], MADE_BY.get(name, AGAIN))


def read_if_there(folder: Path, name: str) -> Any:
    """The same; None without the file."""
    return read(folder, name) if (folder / name).exists() else None
