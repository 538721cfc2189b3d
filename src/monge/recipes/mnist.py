"""MNIST"""

from __future__ import annotations

from monge.runs.spec import TrainSpec

ORIGIN = (
    "MNIST as one npz file of uint8 arrays x_train, y_train, x_test and y_test; 60,000 and 10,000 "
    "grey images of 28 x 28 (Y. LeCun, C. Cortes; CC BY-SA 3.0)"
)

SPEC = TrainSpec(
    data="mnist.npz",
    image_size=32,
    image_fit="pad",
    autoencoder="conv:down=8,channels=2,width=96",
    autoencoder_steps=4000,
    network="mlp:width=768,depth=4",
    steps=12_000,
    batch=256,
    lr=2e-3,
)
