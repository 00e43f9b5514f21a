"""Writes the .npz files beside it: what independent PyTorch code makes of the seeded inputs.

Run by hand, in an environment of its own (Python 3.11; neither jax nor pfm_jax is needed):

    pip install torch==2.14.1 torchvision==0.29.1 timm==1.0.31 \
        efficientnet_lite_pytorch==0.1.0 numpy==2.4.6 pillow==13.0.0
    python tests/parity/goldens/make_goldens.py
    python tests/parity/goldens/make_timm.py

Networks and heads run in float64: the goldens then depend on no machine's order of summation, and
what a float32 implementation differs by is its own rounding. Under a minute on 2 cores.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import torch.nn.functional as F
import torchvision
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from seeded import SEED, seeded_bytes, seeded_images, seeded_mask, seeded_tensor
from torch import Tensor, nn

FOLDER = Path(__file__).parent
VERSIONS = (
    f"torch {torch.__version__}, torchvision {torchvision.__version__}, numpy {np.__version__}, "
    f"pillow {PIL.__version__}, python {platform.python_version()}, "
    f"timm {timm.__version__}, efficientnet_lite_pytorch 0.1.0"
)
LEVELS = ("conv2_x", "conv3_x", "conv4_x")
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
WIDE = "wide_resnet50_2"
VGGS = ("vgg16", "vgg19", "vgg16_bn", "vgg19_bn")
LITES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SIZES = ((256, 256), (200, 152))
ODD_SIZE, ODD_NAMES = (129, 97), ("resnet50", "resnet50_caffe", "efficientnet_lite0")

Arrays = dict[str, np.ndarray]
Stages = Callable[[Tensor], list[Tensor]]


def save(name: str, arrays: Arrays) -> None:
    """Writes `name`.npz, with the versions that made it and a probe of the random stream."""
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, versions=np.array(VERSIONS), probe=seeded_images((8,)), **arrays)
    print(f"{path.name}: {len(arrays)} arrays, {path.stat().st_size / 1e3:.0f} kB")


def sample(array: np.ndarray, key: str, count: int = 256) -> Arrays:
    """`count` values of `[B, H, W, C]` and where they lie in it, flattened.

    The first, the last, and an eighth on each border, where a fault of padding shows.
    """
    rng, n = np.random.default_rng(SEED), count // 8
    _, height, width, _ = array.shape
    b, y, x, c = (rng.integers(0, size, count) for size in array.shape)
    y[:n], y[n : 2 * n], x[2 * n : 3 * n], x[3 * n : 4 * n] = 0, height - 1, 0, width - 1
    indices = np.ravel_multi_index((b, y, x, c), array.shape).astype(np.int32)
    indices[-2:] = 0, array.size - 1
    values = array.reshape(-1)[indices]
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return {f"{key}/indices": indices, f"{key}/values": values}


def to_torch(array: np.ndarray) -> Tensor:
    """`[B, H, W, C]` -> float64 `[B, C, H, W]`."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).double()


def to_numpy(tensor: Tensor) -> np.ndarray:
    """`[B, C, H, W]` -> `[B, H, W, C]`."""
    return tensor.detach().permute(0, 2, 3, 1).numpy()


# --- the frozen networks ---


def resnet(name: str) -> tuple[nn.Module, Stages]:
    """torchvision's ResNet to conv4_x; `_caffe` moves strides and pads as the original did."""
    model = torchvision.models.get_model(name.removesuffix("_caffe"), weights=None)
    model.layer4 = model.fc = nn.Identity()
    if name.endswith("_caffe"):
        model.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
        for block in model.modules():
            if isinstance(block, torchvision.models.resnet.Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)

    def stages(x: Tensor) -> list[Tensor]:
        outputs = [model.maxpool(model.relu(model.bn1(model.conv1(x))))]
        for layer in (model.layer1, model.layer2, model.layer3):
            outputs.append(layer(outputs[-1]))
        return outputs[1:]

    return model, stages


def vgg(name: str) -> tuple[nn.Module, Stages]:
    """torchvision's VGG; the levels are what goes into the last three poolings."""
    model = torchvision.models.get_model(name, weights=None)
    model.classifier = nn.Identity()

    def stages(x: Tensor) -> list[Tensor]:
        before_pooling = []
        for layer in model.features:
            if isinstance(layer, nn.MaxPool2d):
                before_pooling.append(x)
            x = layer(x)
        return before_pooling[-3:]

    return model, stages


def efficientnet_lite(name: str) -> tuple[nn.Module, Stages]:
    """The package's network to stride 16; without an image size its padding is TensorFlow's."""
    model = EfficientNet.from_name(name.replace("_", "-"), image_size=None)
    steps = [block._depthwise_conv.stride[0] for block in model._blocks]
    strides = [int(stride) for stride in 2 * np.cumprod(steps) if stride <= 16]
    model._blocks = model._blocks[: len(strides)]
    model._conv_head = model._bn1 = model._fc = nn.Identity()

    def stages(x: Tensor) -> list[Tensor]:
        x = model._swish(model._bn0(model._conv_stem(x)))
        last: dict[int, Tensor] = {}
        for stride, block in zip(strides, model._blocks, strict=True):
            x = last[stride] = block(x)
        return [last[4], last[8], last[16]]

    return model, stages


def load_seeded(module: nn.Module, prefix: str = "") -> None:
    """Fills parameters and running statistics by their names."""
    tensors = {
        name: torch.from_numpy(seeded_tensor(prefix + name, tuple(tensor.shape)))
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    module.load_state_dict(module.state_dict() | tensors)


@torch.no_grad()
def make_backbones() -> Arrays:
    """Per network, size and level: shape, samples, channel means, largest magnitude."""
    arrays: Arrays = {}
    for name in (*RESNETS, *(f"{resnet}_caffe" for resnet in RESNETS), WIDE, *VGGS, *LITES):
        family = efficientnet_lite if name in LITES else vgg if name in VGGS else resnet
        model, stages = family(name)
        if name in VGGS:
            arrays[f"{name}/layers"] = np.array([type(m).__name__ for m in model.features])
        load_seeded(model)
        model.double().eval()
        arrays[f"{name}/parameters"] = np.array(sum(p.numel() for p in model.parameters()))
        for size in (*SIZES, ODD_SIZE) if name in ODD_NAMES else SIZES:
            outputs = stages(to_torch(seeded_images((1, *size, 3))))
            for level, output in zip(LEVELS, map(to_numpy, outputs), strict=True):
                key = f"{name}/{size[0]}x{size[1]}/{level}"
                arrays[f"{key}/shape"] = np.array(output.shape)
                arrays[f"{key}/means"] = output.mean((0, 1, 2)).astype(np.float32)
                arrays[f"{key}/max_abs"] = np.abs(output).max().astype(np.float32)
                arrays |= sample(output, key)
    return arrays


# --- resizing ---


def make_resize() -> Arrays:
    """Pillow's LANCZOS for images, nearest for masks, to 256x256."""
    arrays: Arrays = {}
    for height, width in ((300, 300), (123, 457), (64, 80), (512, 512)):
        image = Image.fromarray(seeded_bytes((height, width, 3)))
        mask = Image.fromarray(seeded_mask((height, width)))
        image = image.resize((256, 256), Image.Resampling.LANCZOS)
        mask = mask.resize((256, 256), Image.Resampling.NEAREST)
        arrays |= sample(np.asarray(image)[None], f"image/{height}x{width}")
        arrays |= sample(np.asarray(mask)[None, :, :, None], f"mask/{height}x{width}")
    return arrays


def make_upsample() -> Arrays:
    """Bilinear interpolation with half-pixel centres of maps `[2, h, w]`."""
    arrays: Arrays = {}
    for size, target in (
        ((64, 64), (256, 256)),
        ((32, 32), (256, 256)),
        ((16, 16), (256, 256)),
        ((10, 14), (160, 224)),
    ):
        maps = torch.from_numpy(seeded_images((2, *size)))[:, None]
        maps = F.interpolate(maps, size=target, mode="bilinear", align_corners=False)
        arrays |= sample(to_numpy(maps), f"{size[0]}x{size[1]}_to_{target[0]}x{target[1]}")
    return arrays


# --- the heads of one level ---

SOURCE, TARGET, LATENT = 16, 24, 10
GRID = (4, 5, 7)
STEPS = 5


class Layer(nn.Module):
    """1x1 convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, inputs, H, W]` -> `[B, outputs, H, W]`."""
        return F.relu(self.bn(self.conv(x)))


class Direction(nn.Module):
    """One direction's own layers: all but the third, which is shared."""

    def __init__(self, inputs: int, outputs: int, latent: int) -> None:
        super().__init__()
        self.layer1 = Layer(inputs, inputs // 2 + latent)
        self.layer2 = Layer(inputs // 2 + latent, 2 * latent)
        self.layer4 = Layer(latent, 2 * latent)
        self.layer5 = Layer(2 * latent, outputs // 2 + latent)
        last = nn.Conv2d(outputs // 2 + latent, outputs, 1)
        self.layer6 = nn.Sequential(OrderedDict(conv=last))

    def forward(self, x: Tensor, shared: nn.Module) -> Tensor:
        """`[B, inputs, H, W]` -> `[B, outputs, H, W]`."""
        return self.layer6(self.layer5(self.layer4(shared(self.layer2(self.layer1(x))))))


class Heads:
    """Both directions and the shared unit; a name is `{forward, backward, shared}.*`."""

    def __init__(self) -> None:
        self.parts = {
            "forward": Direction(SOURCE, TARGET, LATENT),
            "backward": Direction(TARGET, SOURCE, LATENT),
            "shared": nn.Conv2d(2 * LATENT, LATENT, 1),
        }
        for name, part in self.parts.items():
            load_seeded(part, f"{name}.")
            part.double().train()

    def parameters(self) -> dict[str, nn.Parameter]:
        """Name -> trained parameter."""
        return {f"{k}.{n}": p for k, part in self.parts.items() for n, p in part.named_parameters()}

    def statistics(self) -> dict[str, Tensor]:
        """Name -> running mean or variance."""
        return {
            f"{k}.{n}": b
            for k, part in self.parts.items()
            for n, b in part.named_buffers()
            if "running" in n
        }

    def __call__(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Features -> the predicted target and the predicted source, not normalised."""
        shared = self.parts["shared"]
        return self.parts["forward"](source, shared), self.parts["backward"](target, shared)


def head_batch(index: int) -> tuple[Tensor, Tensor]:
    """The source's and the target's features, every position of L2 norm 1."""
    source, target = (seeded_images((*GRID, size), SEED + index) for size in (SOURCE, TARGET))
    return F.normalize(to_torch(source), dim=1), F.normalize(to_torch(target), dim=1)


def distances(heads: Heads, batch: tuple[Tensor, Tensor], normalize: bool) -> list[Tensor]:
    """Squared distance of prediction and truth `[B, H, W]`, for the target and for the source."""
    source, target = batch
    predictions = heads(source, target)
    if normalize:
        predictions = tuple(F.normalize(prediction, dim=1) for prediction in predictions)
    pairs = zip(predictions, (target, source), strict=True)
    return [(prediction - truth).square().sum(1) for prediction, truth in pairs]


def head_loss(heads: Heads, batch: tuple[Tensor, Tensor], normalize: bool = True) -> Tensor:
    """Eq. 12, the mean over batch and positions."""
    to_target, to_source = distances(heads, batch, normalize)
    return to_target.mean() / TARGET + to_source.mean() / SOURCE


@torch.no_grad()
def anomaly_map(heads: Heads, batch: tuple[Tensor, Tensor]) -> np.ndarray:
    """Eq. 14 in evaluation mode, `[B, H, W]`."""
    for part in heads.parts.values():
        part.eval()
    to_target, to_source = distances(heads, batch, normalize=True)
    return ((to_target + to_source) / 2).numpy()


def make_heads() -> Arrays:
    """Outputs, losses, gradients, five steps of Adam, anomaly maps; all float64."""
    predicted_target, predicted_source = Heads()(*head_batch(0))
    arrays: Arrays = {
        "train/forward": to_numpy(predicted_target),
        "train/backward": to_numpy(predicted_source),
        "initial/anomaly_map": anomaly_map(Heads(), head_batch(STEPS)),
    }
    for case, normalize in (("normalized", True), ("unnormalized", False)):
        heads = Heads()
        loss = head_loss(heads, head_batch(0), normalize)
        loss.backward()
        arrays[f"{case}/loss"] = loss.detach().numpy()
        for name, parameter in heads.parameters().items():
            arrays[f"{case}/gradients/{name}"] = parameter.grad.numpy()

    heads = Heads()
    optimizer = torch.optim.Adam(heads.parameters().values(), lr=3e-4, weight_decay=1e-5)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = head_loss(heads, head_batch(step))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    arrays["trained/losses"] = np.array(losses)
    for name, value in (heads.parameters() | heads.statistics()).items():
        arrays[f"trained/{name}"] = value.detach().numpy().copy()
    arrays["trained/anomaly_map"] = anomaly_map(heads, head_batch(STEPS))
    return arrays


def make_checkpoints() -> None:
    """Writes `tiny_zip.pth` and `tiny_legacy.pth`: one state dict in both of torch's formats."""
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    state = OrderedDict(
        contiguous=base,
        transposed=base.permute(2, 0, 1),
        slice=base[1, 1:],
        parameter=nn.Parameter(base[0] / 2),
        half=base[0].half(),
        bfloat16=(base[0] / 3).bfloat16(),
        double=base[0].double(),
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
    )
    torch.save(state, FOLDER / "tiny_zip.pth")
    torch.save(state, FOLDER / "tiny_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    save("resize", make_resize())
    save("upsample", make_upsample())
    save("heads", make_heads())
    save("backbones", make_backbones())
    make_checkpoints()
