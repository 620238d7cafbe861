"""The networks as PyTorch modules: definitions of our own after the papers, with the names of the published checkpoints.

Weights and pictures are drawn as `lixelscope bench` draws them (src/bench/random.rs), so both sides compute the same:
outputs.py holds what they gave against each other.
"""

import numpy as np
import torch
import torchvision
from torch import nn

BINS = 64
# Of ImageNet's red, green and blue, in [0, 1].
MEAN, DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
# Joints of MuCo-3DHP that change places in a mirror.
FLIP_PAIRS = [(2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (17, 18), (19, 20)]


def noise(seed, count):
    """The numbers of a small generator (SplitMix64), f32 in [-1, 1)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def weight(name, shape):
    """The weight of this name, f32; what the rules are for is said in random.rs."""
    if len(shape) == 1 and not name.endswith(("bias", "mean")):
        return np.full(shape, 0.2 if name.endswith("bn3.weight") else 1, np.float32)
    if len(shape) == 1:
        scale = np.float32(0.1)
    else:
        scale = np.sqrt(np.float32(6) / np.float32(np.prod(shape[1:])))
        if name in ["conv1.weight", "backbone.conv1.weight"]:
            scale /= np.float32(256)
        elif name.endswith(("bbox_pred.weight", "cls_logits.weight")):
            scale /= np.float32(8)
        elif ".fpn." in name:
            scale /= np.float32(2)
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    return scale * noise(seed, int(np.prod(shape))).reshape(shape)


def picture(width, height):
    """A picture of noise, u8 `[3, H, W]`."""
    values = (noise(7, width * height * 3) * np.float32(127) + np.float32(128)).astype(np.uint8)
    return torch.from_numpy(values.reshape(height, width, 3)).permute(2, 0, 1).contiguous()


class Stages(nn.Module):
    """A ResNet-50 without stem and classifier."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet50(weights=None)
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def stages(self, x):
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x):
        return self.stages(x)


class Backbone(Stages):
    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet50(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool

    def stem(self, x):
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def forward(self, x):
        return self.stages(self.stem(x))


def deconvolutions():
    layers = []
    for inputs in [2048, 256, 256]:
        layers += [nn.ConvTranspose2d(inputs, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU()]
    return nn.Sequential(*layers)


def soft_argmax(heatmaps):
    return (heatmaps * torch.arange(BINS, dtype=heatmaps.dtype, device=heatmaps.device)).sum(-1)


class Normalised(nn.Module):
    """ImageNet's mean and deviation on `0..=255`, without the division by 255, as the releases do."""

    def __init__(self):
        super().__init__()
        for name, values in [("mean", MEAN), ("deviation", DEVIATION)]:
            self.register_buffer(name, torch.tensor(values).reshape(1, 3, 1, 1), persistent=False)

    def forward(self, patch):
        return (patch - self.mean) / self.deviation


def line(points):
    """A 1x1 convolution of heatmaps over a line."""
    return nn.Sequential(nn.Conv1d(256, points, 1))


class LixelHead(nn.Module):
    def __init__(self, points):
        super().__init__()
        self.deconv = deconvolutions()
        self.conv_x, self.conv_y, self.conv_z_2 = line(points), line(points), line(points)
        self.conv_z_1 = nn.Sequential(nn.Conv1d(2048, 256 * BINS, 1), nn.BatchNorm1d(256 * BINS), nn.ReLU())

    def forward(self, feature):
        plane = self.deconv(feature)
        depths = self.conv_z_1(feature.mean((2, 3)).unsqueeze(2)).reshape(-1, 256, BINS)
        axes = [self.conv_x(plane.mean(2)), self.conv_y(plane.mean(3)), self.conv_z_2(depths)]
        return torch.stack([soft_argmax(axis.softmax(2)) for axis in axes], 2)


class Pose2Feat(nn.Module):
    """Early feature and joints. The Gaussians are a volume, as the release makes them."""

    def __init__(self, joints):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(64 + joints * BINS, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())

    def forward(self, early, joints):
        offsets = torch.arange(BINS, dtype=joints.dtype, device=joints.device) - joints.unsqueeze(3)
        x, y, z = torch.exp(-((offsets / 2.5) ** 2) / 2).unbind(2)
        volume = z[:, :, :, None, None] * y[:, :, None, :, None] * x[:, :, None, None, :]
        return self.conv(torch.cat([early, volume.flatten(1, 2)], 1))


class I2l(nn.Module):
    """I2L-MeshNet's body: joints, then the mesh."""

    outputs = ["joints", "vertices"]

    def __init__(self, joints=29, vertices=6890):
        super().__init__()
        self.pose_backbone, self.pose_net = Backbone(), LixelHead(joints)
        self.pose2feat = Pose2Feat(joints)
        self.mesh_backbone, self.mesh_net = Stages(), LixelHead(vertices)

    def forward(self, patch):
        early = self.pose_backbone.stem(patch / 255)
        joints = self.pose_net(self.pose_backbone.stages(early))
        return joints, self.mesh_net(self.mesh_backbone(self.pose2feat(early, joints)))


class RootHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.deconv_layers = deconvolutions()
        self.xy_layer, self.depth_layer = nn.Conv2d(256, 1, 1), nn.Conv2d(2048, 1, 1)

    def forward(self, feature):
        heatmap = self.xy_layer(self.deconv_layers(feature)).flatten(1).softmax(1).reshape(-1, BINS, BINS)
        gamma = self.depth_layer(feature.mean((2, 3), keepdim=True)).flatten()
        return torch.stack([soft_argmax(heatmap.sum(1)), soft_argmax(heatmap.sum(2))], 1), gamma


class RootNet(nn.Module):
    outputs = ["coords", "gamma"]

    def __init__(self):
        super().__init__()
        self.normalised, self.backbone, self.root = Normalised(), Backbone(), RootHead()

    def forward(self, patch):
        return self.root(self.backbone(self.normalised(patch)))


class PoseHead(nn.Module):
    def __init__(self, joints):
        super().__init__()
        self.joints = joints
        self.deconv_layers = deconvolutions()
        self.final_layer = nn.Conv2d(256, joints * BINS, 1)

    def forward(self, feature):
        logits = self.final_layer(self.deconv_layers(feature))
        p = logits.reshape(-1, self.joints, BINS**3).softmax(2).reshape(-1, self.joints, BINS, BINS, BINS)
        axes = [soft_argmax(p.sum((2, 3))), soft_argmax(p.sum((2, 4))), soft_argmax(p.sum((3, 4)))]
        return torch.stack(axes, 2)


class PoseNet3d(nn.Module):
    """Averaged with the mirrored patch, as the release does."""

    outputs = ["joints"]

    def __init__(self, joints=21):
        super().__init__()
        self.normalised, self.backbone, self.head = Normalised(), Backbone(), PoseHead(joints)
        order = list(range(joints))
        for a, b in FLIP_PAIRS:
            order[a], order[b] = b, a
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, patch):
        both = self.head(self.backbone(self.normalised(torch.cat([patch, patch.flip(3)], 0))))
        seen, mirrored = both.split(patch.shape[0])
        x, y, z = mirrored[:, self.order].unbind(2)
        return ((seen + torch.stack([BINS - 1 - x, y, z], 2)) / 2,)


class ResNet50(Backbone):
    outputs = ["feature"]

    def forward(self, patch):
        return (super().forward(patch),)


class Detector(nn.Module):
    """torchvision's Mask R-CNN, without the masks, which are made on demand."""

    outputs = ["boxes", "scores", "labels"]

    def __init__(self, shorter, longest):
        super().__init__()
        self.net = torchvision.models.detection.maskrcnn_resnet50_fpn(
            weights=None, weights_backbone=None, min_size=shorter, max_size=longest
        )
        heads = self.net.roi_heads
        heads.mask_roi_pool = heads.mask_head = heads.mask_predictor = None
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0  # as with the published weights

    def forward(self, pictures):
        """Pictures `[B, 3, H, W]` in `0..=255`; what was found in the first of them."""
        found = self.net(list(pictures / 255))[0]
        return tuple(found[name] for name in self.outputs)

    def proposals(self, pictures):
        """How many regions reach the heads of the first picture."""
        images, _ = self.net.transform(list(pictures / 255))
        features = self.net.backbone(images.tensors)
        return len(self.net.rpn(images, features)[0][0])


# Name in `lixelscope bench`, module, width and height of the input, whether ONNX Runtime takes part.
NETWORKS = {
    "resnet50": (ResNet50, (256, 256), True),
    "i2l_body": (I2l, (256, 256), True),
    "rootnet": (RootNet, (256, 256), True),
    "posenet3d": (PoseNet3d, (256, 256), True),
    "maskrcnn_800": (lambda: Detector(800, 1333), (1280, 960), False),
    "maskrcnn_320": (lambda: Detector(320, 533), (1280, 960), False),
}


def make(name):
    """The network, its input `[1, 3, H, W]`, and whether ONNX Runtime takes part."""
    make_module, size, exports = NETWORKS[name]
    module = make_module()
    named = getattr(module, "net", module).state_dict()
    with torch.no_grad():
        for tensor_name, tensor in named.items():
            if not tensor_name.endswith("num_batches_tracked"):
                tensor.copy_(torch.from_numpy(weight(tensor_name, tuple(tensor.shape))))
    return module.eval(), picture(*size).float().unsqueeze(0), exports
