"""CIFAR-10 at a size for two cores, through 128 latent numbers.

monge train cifar10/ --recipe cifar10
monge evaluate RUN -n 10000 --features resnet20:WEIGHTS.safetensors
"""

from __future__ import annotations

from monge.runs.spec import TrainSpec

ORIGIN = (
    "a folder with CIFAR-10 as parquet files of the Hugging Face hub have it, "
    "train-*.parquet and test-*.parquet with the columns img and label (A. Krizhevsky, 2009)"
)

SPEC = TrainSpec(
    data="cifar10",
    autoencoder="conv:down=8,channels=8,width=96",
    autoencoder_steps=4000,
    network="mlp:width=1024,depth=4",
    steps=6000,
    batch=256,
    lr=1e-3,
    guidance=1.25,
)
