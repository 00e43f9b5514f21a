"""Writes student.npz and ssim.npz: STFPM by torchvision's ResNet18, SSIM by scikit-image.

Run by hand, in an environment of its own:

    pip install torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 scikit-image==0.26.0
    python tests/parity/goldens/make_baselines.py

In float64; seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage
import torch
import torch.nn.functional as F
import torchvision
from seeded import seeded_bytes, seeded_images, seeded_tensor
from skimage.metrics import structural_similarity
from torch import Tensor, nn

SHAPES = {"conv2_x": (3, 64, 16, 16), "conv3_x": (3, 128, 8, 8), "conv4_x": (3, 256, 4, 4)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TENSORS = (
    *("conv1.weight", "bn1.bias", "layer1.0.conv2.weight", "layer2.0.downsample.0.weight"),
    *("layer2.0.downsample.1.weight", "layer3.0.conv1.weight", "layer3.1.bn2.bias"),
)
STATISTICS = ("bn1.running_mean", "layer2.0.downsample.1.running_var", "layer3.1.bn2.running_mean")


def pyramid(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Unit vectors of the first three stages."""
    x = network.maxpool(F.relu(network.bn1(network.conv1(images))))
    found = []
    for layer in (network.layer1, network.layer2, network.layer3):
        x = layer(x)
        found.append(F.normalize(x, dim=1))
    return found


def make_ssim() -> None:
    """SSIM at each pixel of two images, one a changed copy of the other; the mean of channels."""
    a, noise = seeded_bytes((40, 36, 3), 0) / 255.0, seeded_images((40, 36, 3))
    b = np.clip(0.7 * a + 0.1 + 0.1 * noise, 0, 1)
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(a, b, channel_axis=2, data_range=1.0, full=True, **how)
    path = Path(__file__).parent / "ssim.npz"
    np.savez_compressed(path, a=a.astype(np.float32), b=b.astype(np.float32), ssim=full.mean(-1))
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, scikit-image {skimage.__version__}")


def make_student() -> None:
    """Trains on one batch, then scores it with the statistics that it left."""
    network = torchvision.models.resnet18(weights=None)
    state = network.state_dict()
    for name, tensor in state.items():
        if not name.startswith(("layer4", "fc")) and not name.endswith("num_batches_tracked"):
            state[name] = torch.from_numpy(seeded_tensor(name, tuple(tensor.shape)))
    network.load_state_dict(state)
    network.double().train()
    pixels = np.stack([seeded_bytes((64, 64, 3), seed) for seed in range(3)])
    scaled = (pixels / 255.0 - np.array(MEAN)) / np.array(STD)
    images = torch.from_numpy(scaled.transpose(0, 3, 1, 2))
    targets = [
        F.normalize(torch.from_numpy(seeded_images(shape).astype(np.float64)), dim=1)
        for shape in SHAPES.values()
    ]
    found = pyramid(network, images)
    loss = sum((0.5 * (a - b).square().sum(1)).mean() for a, b in zip(found, targets, strict=True))
    loss.backward()
    parameters, state = dict(network.named_parameters()), network.state_dict()
    arrays = {f"grad/{name}": parameters[name].grad.numpy() for name in TENSORS}
    arrays |= {f"after/{name}": state[name].numpy() for name in STATISTICS}
    with torch.no_grad():
        scored = pyramid(network.eval(), images)
    product = torch.ones(3, 64, 64, dtype=torch.float64)
    for a, b in zip(scored, targets, strict=True):
        distances = 0.5 * (a - b).square().sum(1, keepdim=True)
        product *= F.interpolate(distances, (64, 64), mode="bilinear")[:, 0]
    kept = {k: v.astype(np.float32).reshape(-1)[:500] for k, v in arrays.items()}
    path = Path(__file__).parent / "student.npz"
    np.savez_compressed(path, loss=loss.item(), maps=product.numpy().astype(np.float32), **kept)
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB, torch {torch.__version__}")


if __name__ == "__main__":
    make_student()
    make_ssim()
