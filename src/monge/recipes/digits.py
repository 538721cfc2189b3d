"""scikit-learn's bundled digits through a trained autoencoder: what `make demo` runs.

    monge train --recipe digits            # or: monge demo, with samples and evaluation

1,797 grey images of 8 x 8; a convolutional autoencoder (32 latent numbers for 64 pixels), then a
transformer of 1.3 M parameters on four tokens, conditioned on the label. MEASURED
"""

from __future__ import annotations

from monge.runs.spec import TrainSpec

SPEC = TrainSpec(
    data="digits",
    autoencoder="conv:down=2,channels=2",
    autoencoder_steps=600,
    network="transformer:width=128,depth=4,heads=4,patch=2",
    steps=1700,
    batch=128,
    lr=3e-3,
)
