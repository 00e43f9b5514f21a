"""Pre-trained feature mapping in PyTorch, written from the paper, run like the released code.

Eager, in float32: every training step sends whole images through both networks (in evaluation mode)
and the heads. `Reference.tuned()` adds torch's inference optimisations. Needs the extra `bench`; no
JAX.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEVELS = ("conv2_x", "conv3_x", "conv4_x")
DEPTHS = {"resnet18": (2, 2, 2), "resnet34": (3, 4, 6), "resnet50": (3, 4, 6)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Basic or bottleneck block, with torchvision's names."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, caffe: bool):
        super().__init__()
        outputs = width * (4 if bottleneck else 1)
        first, second = (stride, 1) if caffe else (1, stride)
        sizes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            sizes = [(inputs, width, 1, first), (width, width, 3, second), (width, outputs, 1, 1)]
        self.depth = len(sizes)
        for n, (into, out, kernel, step) in enumerate(sizes, 1):
            conv = nn.Conv2d(into, out, kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{n}", conv)
            self.add_module(f"bn{n}", nn.BatchNorm2d(out))
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` -> the block's output."""
        y = x
        for n in range(1, self.depth + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            if n < self.depth:
                y = F.relu(y, inplace=True)
        return F.relu(y + self.downsample(x), inplace=True)


class ResNet(nn.Module):
    """Stem and three stages; names that end in `_caffe` have the original strides."""

    def __init__(self, name: str):
        super().__init__()
        arch, caffe = name.removesuffix("_caffe"), name.endswith("_caffe")
        bottleneck = arch == "resnet50"
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 0 if caffe else 1, ceil_mode=caffe)
        inputs = 64
        for stage, depth in enumerate(DEPTHS[arch]):
            width, blocks = 64 * 2**stage, []
            for index in range(depth):
                stride = 2 if stage and not index else 1
                blocks.append(Block(inputs, width, stride, bottleneck, caffe))
                inputs = width * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised RGB `[B, 3, H, W]` -> level -> features `[B, C, h, w]`."""
        x = self.pool(F.relu(self.bn1(self.conv1(images)), inplace=True))
        pyramid = {}
        for stage, level in enumerate(LEVELS, 1):
            pyramid[level] = x = getattr(self, f"layer{stage}")(x)
        return pyramid


def fold(module: nn.Module) -> nn.Module:
    """Folds every BatchNorm into the convolution before it; evaluation mode only."""
    previous: tuple[str, nn.Conv2d] | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and previous is not None:
            setattr(module, previous[0], fuse_conv_bn_eval(previous[1], child))
            setattr(module, name, nn.Identity())
        previous = (name, child) if isinstance(child, nn.Conv2d) else None
        fold(child)
    return module


class Mapping(nn.Module):
    """Both directions at one level (Table I), with the shared mapping unit."""

    def __init__(self, source: int, target: int, c: int):
        super().__init__()

        def layers(*widths: int, last: bool) -> nn.Sequential:
            parts: list[nn.Module] = []
            for n, (into, out) in enumerate(pairwise(widths), 2):
                parts.append(nn.Conv2d(into, out, 1))
                if not (last and n == len(widths)):
                    parts += [nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
            return nn.Sequential(*parts)

        self.shared = nn.Conv2d(2 * c, c, 1)
        self.encoders, self.decoders = nn.ModuleDict(), nn.ModuleDict()
        for name, a, b in (("mnn", source, target), ("rmnn", target, source)):
            self.encoders[name] = layers(a, a // 2 + c, 2 * c, last=False)
            self.decoders[name] = layers(c, 2 * c, b // 2 + c, b, last=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Features `[B, C, h, w]` -> squared distances `[2, B, h, w]`, forward and backward."""
        ends = {"mnn": (source, target), "rmnn": (target, source)}
        distances = []
        for name, (into, wanted) in ends.items():
            latent = self.shared(self.encoders[name](into))
            predicted = F.normalize(self.decoders[name](latent))
            distances.append((predicted - wanted).square().sum(1))
        return torch.stack(distances)


class Reference(nn.Module):
    """Two frozen networks and the heads of three levels.

    Args:
        source, target: names of networks.
        weights: state dictionaries of the two, in torchvision's layout.
        latent: level -> c.
        learning_rate: rate of Adam, at every level.
    """

    def __init__(
        self,
        source: str,
        target: str,
        weights: tuple[dict[str, Tensor], dict[str, Tensor]],
        latent: dict[str, int],
        learning_rate: float = 3e-4,
    ):
        super().__init__()
        self.networks = nn.ModuleList([ResNet(source), ResNet(target)])
        for network, state in zip(self.networks, weights, strict=True):
            wanted = network.state_dict()
            network.load_state_dict({k: state[k] for k in wanted if k in state}, strict=False)
            missing = [k for k in wanted if k not in state and "num_batches" not in k]
            if missing:
                raise ValueError(f"weights lack {missing}")
            network.requires_grad_(False).eval()
        self.channels = [
            (64 * 2**n * (1 + 3 * ("50" in source)), 64 * 2**n * (1 + 3 * ("50" in target)))
            for n in range(3)
        ]
        self.heads = nn.ModuleDict(
            {k: Mapping(*self.channels[n], latent[k]) for n, k in enumerate(LEVELS)}
        )
        self.optimizers = [
            torch.optim.Adam(head.parameters(), learning_rate, weight_decay=1e-5)
            for head in self.heads.values()
        ]
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def tuned(self) -> Reference:
        """Optimises for inference: folded BatchNorm, channels last."""
        for network in self.networks:
            fold(network)
        self.eval()
        for head in self.heads.values():
            for part in (*head.encoders.values(), *head.decoders.values()):
                fold(part)
        return self.to(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> list[dict[str, Tensor]]:
        """uint8 `[B, H, W, 3]` -> two pyramids of unit vectors."""
        scaled = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return [{k: F.normalize(f) for k, f in net(scaled).items()} for net in self.networks]

    def train_step(self, images: Tensor) -> dict[str, float]:
        """Takes one step on uint8 `[B, H, W, 3]` (eq. 12); returns the loss of each level."""
        self.heads.train()
        with torch.no_grad():
            source, target = self.features(images)
        losses = {}
        for n, (level, optimizer) in enumerate(zip(LEVELS, self.optimizers, strict=True)):
            forward, backward = self.heads[level](source[level], target[level])
            a, b = self.channels[n]
            loss = forward.mean() / b + backward.mean() / a
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[level] = loss.item()
        return losses

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 `[B, H, W, 3]` -> fused maps `[B, H, W]` (eq. 14, 15) and image scores `[B]`."""
        source, target = self.features(images)
        size = images.shape[1:3]
        maps = [
            F.interpolate(
                self.heads[k](source[k], target[k]).mean(0)[:, None], size, mode="bilinear"
            )
            for k in LEVELS
        ]
        fused = torch.cat(maps, 1).mean(1)
        return fused, fused.amax((1, 2))


def score(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Scores images by a `Reference`, compiled or not, in evaluation mode without gradients."""
    model.eval()
    with torch.inference_mode():
        return model(images)
