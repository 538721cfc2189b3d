"""CIFAR-10 at a size for two cores, through 128 latent numbers: colours and layout, no details.

    monge train cifar10/ --recipe cifar10
    monge evaluate RUN -n 5000 --features resnet20:WEIGHTS.safetensors

50,000 colour images of 32 x 32; a convolutional autoencoder with 8 x 4 x 4 latent numbers (24.0 dB
on the test images; PCA with 128 numbers 23.9 dB), then a perceptron of 8.9 M parameters conditioned
on the label. At this compression the reconstructions are the limit.

Measured on 2 cores of an AMD EPYC (AVX2) shared with other work, seed 0, on CIFAR-10 (JPEG Q75),
5,000 samples by Heun 10 steps against 5,000 test images, in the features of a ResNet-20 with 81.0 %
on them: Frechet distance 32.6 at guidance 1.25 and 34.0 without; reconstructions of training images
22.6, training images 0.04. The distances were taken with `Run.sample` and
`metrics.frechet.frechet_distance` directly; `monge evaluate` was not run to its end on it. Training
took 39.7 minutes of processor time over two threads, and 34.7 minutes on the shared machine.
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
