"""Where feature networks come from: by name, from a Python file, or from the [fid] extra.

| text | network |
|---|---|
| ``lenet5:FILE.safetensors``, ``resnet20:FILE.safetensors`` | of `feature_networks` |
| ``MODULE.py:FACTORY``, ``MODULE.py:FACTORY:FILE.safetensors`` | what FACTORY() returns |
| ``fid`` | Inception-v3 as torch-fidelity has it, with the weights of the published FID |

A factory is a function without arguments, an `nn.Module` class, or a module. The module takes
images (B, C, H, W) in [-1, 1], as everywhere in monge, and returns features (B, d), or the pair
(features, logits). An attribute ``classes``, a tuple of names, says what the logits stand for;
without it nothing is said of labels. The Python file is run: name only one that you trust.

``FILE.pt2`` is refused. `torch.export.load` (read and tried in torch 2.13.0) unpickles: the sample
inputs of an archive are read by `torch.load` with ``weights_only=True`` and, where that fails, once
more without, so that a prepared file runs code; weights marked as pickled are read without from
the start; and symbolic sizes are evaluated as Python by sympy. It says so itself: "never load data
from an untrusted source". A network of one's own is as easily given by a Python file and
safetensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from monge.errors import UserError, missing_extra, nearest, reason
from monge.metrics.feature_networks import Images, LeNet5, ResNet20
from monge.metrics.features import FeatureNetwork
from monge.system.loading import load

DIGITS = tuple(str(k) for k in range(10))
CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

Read = Callable[[str, str], FeatureNetwork]
"""Makes a network of the name it has in `NETWORKS` and the text after the colon."""


def _published(
    build: Callable[[], nn.Module],
    channels: int,
    sides: tuple[int, ...],
    classes: tuple[str, ...],
) -> Read:
    """Reads published weights into a network of ours."""

    def read(name: str, text: str) -> FeatureNetwork:
        if not text:
            raise UserError(
                f"feature network {name!r} needs its file of weights: {name}:FILE.safetensors"
            )
        module = build()
        settings = _settings(f"sha256 {_read_weights(module, Path(text), name)}")
        return FeatureNetwork(name, _frozen(module), channels, sides, classes, settings)

    return read


def _fid(name: str, text: str) -> FeatureNetwork:
    """Inception-v3 by torch-fidelity, which downloads its weights and reads them itself."""
    if text:
        raise UserError(f"feature network {name!r} takes no file, not {text!r}")
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found]
            FeatureExtractorInceptionV3,
        )
    except Exception as error:  # with a torchvision for another torch its import fails in any way
        missing = missing_extra("torch-fidelity", "fid", f"Feature network {name!r}")
        raise UserError(f"{missing} ({reason(error)})") from None
    try:
        extractor = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    except OSError as error:
        raise UserError(f"cannot fetch the weights of {name!r}: {reason(error)}") from None
    module = _frozen(Inception(extractor))
    settings = {
        "weights": "inception-v3-compat of torch-fidelity",
        "images": "uint8 RGB (grey repeated), enlarged to 299 as by TensorFlow 1",
        "features": "2048, of the last pooling layer",
    }
    return FeatureNetwork(name, module, settings=settings)


class Inception(nn.Module):
    """A feature extractor of torch-fidelity for images (B, 1 or 3, H, W) in [-1, 1]."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, x: Images) -> Tensor:
        pixels = ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self.extractor(pixels.expand(-1, 3, -1, -1))[0]


NETWORKS: Mapping[str, Read] = {
    "lenet5": _published(LeNet5, 1, (28, 32), DIGITS),
    "resnet20": _published(ResNet20, 3, (32,), CIFAR10),
    "fid": _fid,
}
"""The feature networks that can be named."""


def load_network(text: str) -> FeatureNetwork:
    """The network that a text names, in evaluation mode.

    Raises:
        UserError: an unknown name; a file that is missing, damaged or of another network; a
            Python file that fails, or whose factory returns no module; an extra that is missing.
    """
    name, _, rest = text.partition(":")
    if name in NETWORKS:
        return NETWORKS[name](name, rest)
    if Path(name).suffix == ".py":
        return _from_python(name, rest)
    if Path(name).suffix == ".pt2":
        raise UserError(
            f"{text}: reading an exported program unpickles parts of it, which can run code; "
            "write a Python file with a function that builds the network and give its weights as "
            ".safetensors: MODULE.py:FACTORY:FILE.safetensors"
        )
    raise UserError(
        f"no feature network {name!r} in {text!r}: {nearest(name, NETWORKS)}, or MODULE.py:FACTORY"
    )


def _from_python(file: str, rest: str) -> FeatureNetwork:
    factory, colon, weights = rest.partition(":")
    name = f"{Path(file).name}:{factory}"
    if not factory or (colon and not weights):
        raise UserError(
            f"feature network {file}: write {file}:FACTORY, or {file}:FACTORY:FILE.safetensors"
        )
    found = load(f"{file}:{factory}")
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise UserError(f"feature network {name}: {factory} is neither a function nor a module")
        try:
            found = found()
        except Exception as error:  # a stranger's code raises anything
            said = f"{type(error).__name__}: {reason(error)}"
            raise UserError(f"feature network {name}: {factory}() fails: {said}") from error
    if not isinstance(found, nn.Module):
        kind = type(found).__name__
        raise UserError(f"feature network {name}: {factory}() returns no nn.Module but {kind}")
    if weights:
        digest = f"sha256 {_read_weights(found, Path(weights), name)}"
    else:
        digest = f"sha256 {_digest_of(found)} (of the tensors)"
    classes = tuple(str(c) for c in getattr(found, "classes", ()))
    return FeatureNetwork(name, _frozen(found), classes=classes, settings=_settings(digest))


def _settings(weights: str) -> dict[str, str]:
    return {"weights": weights, "images": "in [-1, 1]"}


def _frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _digest_of(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def _read_weights(module: nn.Module, path: Path, name: str) -> str:
    """Fills a module from a safetensors file; the start of the SHA-256 of the file."""
    if path.suffix != ".safetensors":
        raise UserError(
            f"weights of {name}: {path} is no .safetensors file; other formats can run code when "
            "they are read, so convert it"
        )
    try:
        content = path.read_bytes()
        tensors = from_bytes(content)
    except OSError as error:
        raise UserError(f"cannot read the weights of {name}, {path}: {error.strerror}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged, or no safetensors file: {error}") from None
    # Counts of batches seen are no weights; published files have them or not.
    expected = {k: t for k, t in module.state_dict().items() if not _is_count(k)}
    given = {k: t for k, t in tensors.items() if not _is_count(k)}
    odd = sorted(expected.keys() ^ given.keys())
    if odd:
        missing = sum(k in expected for k in odd)
        raise UserError(
            f"{path} does not hold the weights of {name}: {missing} of {len(expected)} tensors are "
            f"missing, {len(odd) - missing} are unknown (first: {odd[0]})"
        )
    for key, tensor in expected.items():
        if given[key].shape != tensor.shape:
            raise UserError(
                f"{path} does not hold the weights of {name}: {key} has shape "
                f"{tuple(given[key].shape)}, expected {tuple(tensor.shape)}"
            )
    module.load_state_dict(given, strict=False)
    return hashlib.sha256(content).hexdigest()[:12]


def _is_count(key: str) -> bool:
    return key.endswith("num_batches_tracked")
