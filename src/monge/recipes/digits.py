"""scikit-learn's bundled digits through a trained autoencoder: what `make demo` runs."""

from __future__ import annotations

from monge.runs.spec import TrainSpec

SPEC = TrainSpec(
    data="digits",
    autoencoder="conv:down=2,channels=4",
    autoencoder_steps=1000,
    network="transformer:size=XS",
    steps=2000,
    batch=128,
)
