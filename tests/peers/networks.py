"""The networks as PyTorch modules, for timing: definitions of our own after the papers, formula weights.

The formula is that of tests/golden/README.md; every convolution keeps the variance of its input, batch norms do
nothing. Weights do not change how long a network takes.
"""

import math

import numpy as np
import torch
import torchvision
from torch import nn

BINS = 64


def formula(name, count):
    """The stream of a tensor's name: `count` numbers in [-1, 1)."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1


def with_formula_weights(module):
    for name, tensor in module.state_dict().items():
        if tensor.dim() > 1:
            fan_in = tensor[0].numel()
            values = formula(name, tensor.numel()) * math.sqrt(3 / fan_in)
            tensor.copy_(torch.from_numpy(values.astype(np.float32)).reshape(tensor.shape))
        elif name.endswith(("bias", "mean", "num_batches_tracked")):
            tensor.zero_()
        else:
            tensor.fill_(1)
    return module.eval()


class Stages(nn.Module):
    """A ResNet-50 without stem and classifier."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet50(weights=None)
        self.layers = nn.Sequential(net.layer1, net.layer2, net.layer3, net.layer4)

    def forward(self, x):
        return self.layers(x)


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet50(weights=None)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = Stages()

    def forward(self, x):
        return self.stages(self.stem(x))


def deconvolutions():
    layers = []
    for inputs in [2048, 256, 256]:
        layers += [nn.ConvTranspose2d(inputs, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    return nn.Sequential(*layers)


def soft_argmax(heatmaps):
    return (heatmaps * torch.arange(BINS, dtype=heatmaps.dtype, device=heatmaps.device)).sum(-1)


class LixelHead(nn.Module):
    def __init__(self, points):
        super().__init__()
        self.deconv = deconvolutions()
        self.x, self.y, self.z_2 = (nn.Conv1d(256, points, 1) for _ in range(3))
        self.z_1 = nn.Sequential(nn.Conv1d(2048, 256 * BINS, 1), nn.BatchNorm1d(256 * BINS), nn.ReLU())

    def forward(self, feature):
        plane = self.deconv(feature)
        line = self.z_1(feature.mean((2, 3)).unsqueeze(2)).reshape(-1, 256, BINS)
        axes = [self.x(plane.mean(2)), self.y(plane.mean(3)), self.z_2(line)]
        return torch.stack([soft_argmax(axis.softmax(2)) for axis in axes], 2)


class I2l(nn.Module):
    """I2L-MeshNet's body: joints, then the mesh. The Gaussians are a volume, as the release makes them."""

    def __init__(self, joints=29, vertices=6890):
        super().__init__()
        self.backbone = Backbone()
        self.pose_net = LixelHead(joints)
        self.fuse = nn.Sequential(nn.Conv2d(64 + joints * BINS, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.mesh_stages = Stages()
        self.mesh_net = LixelHead(vertices)

    def forward(self, patch):
        early = self.backbone.stem(patch / 255)
        joints = self.pose_net(self.backbone.stages(early))
        offsets = torch.arange(BINS, dtype=joints.dtype, device=joints.device) - joints.unsqueeze(3)
        x, y, z = torch.exp(-((offsets / 2.5) ** 2) / 2).unbind(2)
        volume = z[:, :, :, None, None] * y[:, :, None, :, None] * x[:, :, None, None, :]
        return self.mesh_net(self.mesh_stages(self.fuse(torch.cat([early, volume.flatten(1, 2)], 1))))


class RootNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.deconv = deconvolutions()
        self.xy, self.depth = nn.Conv2d(256, 1, 1), nn.Conv2d(2048, 1, 1)

    def forward(self, patch):
        feature = self.backbone(patch / 255)
        heatmap = self.xy(self.deconv(feature)).flatten(1).softmax(1).reshape(-1, BINS, BINS)
        gamma = self.depth(feature.mean((2, 3), keepdim=True)).flatten(1)
        return torch.cat([torch.stack([soft_argmax(heatmap.sum(1)), soft_argmax(heatmap.sum(2))], 1), gamma], 1)


class PoseNet3d(nn.Module):
    """Averaged with the mirrored patch, as the release does."""

    def __init__(self, joints=21):
        super().__init__()
        self.joints = joints
        self.backbone = Backbone()
        self.deconv = deconvolutions()
        self.volume = nn.Conv2d(256, joints * BINS, 1)

    def forward(self, patch):
        both = torch.cat([patch, patch.flip(3)], 0) / 255
        logits = self.volume(self.deconv(self.backbone(both)))
        p = logits.reshape(-1, self.joints, BINS**3).softmax(2).reshape(-1, self.joints, BINS, BINS, BINS)
        axes = [soft_argmax(p.sum((2, 3))), soft_argmax(p.sum((2, 4))), soft_argmax(p.sum((3, 4)))]
        coords = torch.stack(axes, 2)
        return (coords[:1] + coords[1:]) / 2


class Detector(nn.Module):
    """torchvision's Mask R-CNN, without the masks, which are made on demand."""

    def __init__(self, shorter, longest):
        super().__init__()
        self.net = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, min_size=shorter, max_size=longest
        )
        heads = self.net.roi_heads
        heads.mask_roi_pool = heads.mask_head = heads.mask_predictor = None

    def forward(self, picture):
        return self.net([picture])[0]["boxes"]


# Name in `lixelscope bench`, module, shape of the input, whether ONNX Runtime takes part.
NETWORKS = {
    "resnet50": (Backbone, (1, 3, 256, 256), True),
    "i2l_body": (I2l, (1, 3, 256, 256), True),
    "rootnet": (RootNet, (1, 3, 256, 256), True),
    "posenet3d": (PoseNet3d, (1, 3, 256, 256), True),
    "maskrcnn_800": (lambda: Detector(800, 1333), (3, 960, 1280), False),
    "maskrcnn_320": (lambda: Detector(320, 533), (3, 960, 1280), False),
}


def make(name):
    module, shape, exports = NETWORKS[name]
    image = torch.from_numpy(((formula("image", math.prod(shape)) + 1) * 127).astype(np.float32)).reshape(shape)
    with torch.no_grad():
        return with_formula_weights(module()), image / 255 if name.startswith("maskrcnn") else image, exports
