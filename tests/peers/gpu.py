"""Times the networks in PyTorch on an NVIDIA GPU: eager, channels_last with AMP, torch.compile. tests/gpu/all.sh runs it.

    python tests/peers/gpu.py --runs 30 --json peers.json
    python tests/peers/gpu.py --training --json peers-training.json

The input is copied to the GPU and the result back in every run, as lixelscope's bench does. Ways that a network or an
installation cannot go are named and left out.
"""

import argparse
import json
import statistics
import time

import torch
import torchvision

from networks import NETWORKS, make

# Networks of ONNX Runtime's comparison that have a target on a GPU.
NAMES = ["resnet50", "i2l_body", "rootnet", "maskrcnn_800", "maskrcnn_320"]


def timed(run, runs):
    """Median, milliseconds, after runs that warm up."""
    for _ in range(5):
        run()
    times = []
    for _ in range(runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def batched(name, image, batch):
    """A batch of the one input; detectors take a list."""
    return image if name.startswith("maskrcnn") else image.repeat(batch, 1, 1, 1)


def ways(name, module, image, batch):
    """Name of each way, and what does one run."""
    detector = name.startswith("maskrcnn")
    host = batched(name, image, batch).pin_memory()

    def call(net, x):
        return [out["boxes"] for out in net.net([x] * batch)] if detector else net(x)

    def fetch(out):
        return [o.cpu() for o in out] if isinstance(out, list) else out.cpu()

    def eager():
        return fetch(call(module, host.cuda(non_blocking=True)))

    yield "eager, TF32 off", eager, False
    yield "eager, TF32", eager, True
    last = module.to(memory_format=torch.channels_last)

    def amp():
        with torch.autocast("cuda", dtype=torch.float16):
            x = host.cuda(non_blocking=True)
            return fetch(call(last, x if detector else x.contiguous(memory_format=torch.channels_last)))

    yield "channels_last, AMP f16", amp, True
    compiled = torch.compile(last.net.backbone if detector else last, mode="max-autotune")

    def compile():
        with torch.autocast("cuda", dtype=torch.float16):
            x = host.cuda(non_blocking=True)
            if not detector:
                return fetch(compiled(x.contiguous(memory_format=torch.channels_last)))
            # The rest of the detector has shapes that depend on its data: the trunk alone is compiled.
            trunk, last.net.backbone = last.net.backbone, compiled
            try:
                return fetch(call(last, x))
            finally:
                last.net.backbone = trunk

    yield "compile max-autotune", compile, True


class Trunk(torch.nn.Module):
    """A ResNet-18 with three transposed convolutions to 128 channels, as in tests/gpu/training.rs."""

    def __init__(self):
        super().__init__()
        net = torchvision.models.resnet18(weights=None)
        layers = [net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4]
        for inputs in [512, 128, 128]:
            layers.append(torch.nn.ConvTranspose2d(inputs, 128, 4, 2, 1, bias=False))
            layers += [torch.nn.BatchNorm2d(128), torch.nn.ReLU()]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def training_steps(batch, last):
    """What does so many steps of Adam on the L1 of a batch that is there."""
    module = Trunk().cuda().train()
    image, target = torch.rand(batch, 3, 128, 128).cuda(), torch.rand(batch, 128, 32, 32).cuda()
    if last:
        layout = torch.channels_last
        module, image, target = (x.to(memory_format=layout) for x in (module, image, target))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4, fused=True)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            loss = (module(image) - target).abs().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    return steps


def training(path):
    """Samples a second of whole training steps, f32 and TF32."""
    rows = []
    for batch in [64, 256]:
        for way, tf32, last in [
            ("PyTorch f32", False, False),
            ("PyTorch tf32", True, False),
            ("PyTorch tf32 channels_last", True, True),
        ]:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
            steps = training_steps(batch, last)
            steps(5)
            start = time.perf_counter()
            steps(30)
            per_sec = 30 * batch / (time.perf_counter() - start)
            print(f"resnet18 batch {batch:4} {way:28} {per_sec:9.1f} samples/s", flush=True)
            rows.append({"network": "resnet18", "batch": batch, "precision": way, "per_sec": per_sec})
    if path:
        with open(path, "w") as file:
            json.dump({"torch": torch.__version__, "rows": rows}, file, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json")
    parser.add_argument("--training", action="store_true", help="time training steps instead")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    if args.training:
        return training(args.json)
    rows = []
    for name in args.only:
        for batch in [1, 4]:
            module, image, _ = make(name)
            module = module.cuda()
            median_ms = {}
            for way, run, tf32 in ways(name, module, image, batch):
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
                try:
                    with torch.inference_mode():
                        median_ms[way] = timed(run, args.runs)
                    print(f"{name:14} {batch} {way:24} {median_ms[way]:9.3f} ms", flush=True)
                except Exception as error:  # whatever a way cannot do
                    print(f"{name:14} {batch} {way:24} left out: {str(error).splitlines()[0][:120]}", flush=True)
            rows.append({"network": name, "batch": batch, "median_ms": median_ms})
            del module
            torch.compiler.reset()
            torch.cuda.empty_cache()
            if args.json:  # after each network: compiling takes long, and may be stopped
                with open(args.json, "w") as file:
                    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
                    json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
