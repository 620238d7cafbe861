"""Times the networks in PyTorch on an NVIDIA GPU, and holds their outputs against ours. tests/gpu/all.sh runs it.

    python tests/peers/gpu.py --runs 30 --ours results --json peers.json
    python tests/peers/gpu.py --runs 30 --compile --json peers-compile.json
    python tests/peers/gpu.py --training --json peers-training.json

Input and weights are those of `lixelscope bench`, whose outputs in a precision are in results/outputs-PRECISION. The
input is copied to the GPU and the result back in every run, as there. Ways that a network or an installation cannot go
are named and left out. What torch.compile makes is timed with --compile: that takes longest.
"""

import argparse
import copy
import gc
import json
import statistics
import sys
import time
from pathlib import Path

import torch
import torchvision

import outputs
from networks import make

# Those with a goal first: time may be up before the end.
NAMES = ["i2l_body", "rootnet", "maskrcnn_800", "maskrcnn_320", "resnet50", "posenet3d"]
BATCHES = [1, 4]


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


class Way:
    """How PyTorch computes: the precision of ours that it stands beside, and what it is told."""

    def __init__(self, name, precision, last=False, compiled=False):
        self.name, self.precision, self.last, self.compiled = name, precision, last, compiled
        self.half = {"f16": torch.float16, "bf16": torch.bfloat16}.get(precision)

    def runner(self, module, image, batch):
        """What does one run from the host's memory to the host's memory."""
        tf32 = self.precision != "f32"
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        detector = hasattr(module, "proposals")
        layout = torch.channels_last if self.last else torch.contiguous_format
        host = image.repeat(batch, 1, 1, 1).pin_memory()
        module = module.to(memory_format=layout)
        net = module
        if self.compiled and detector:
            # The rest of the detector has shapes that depend on its data: the trunk alone is compiled.
            trunk, compiled = module.net.backbone, torch.compile(module.net.backbone, mode="max-autotune")
        elif self.compiled:
            net = torch.compile(module, mode="max-autotune")

        def run():
            with torch.autocast("cuda", dtype=self.half or torch.float16, enabled=self.half is not None):
                x = host.cuda(non_blocking=True)
                if not detector:
                    x = x.contiguous(memory_format=layout)
                if not (self.compiled and detector):
                    return [out.cpu() for out in net(x)]
                module.net.backbone = compiled
                try:
                    return [out.cpu() for out in net(x)]
                finally:
                    module.net.backbone = trunk

        return run


WAYS = [
    Way("eager f32", "f32"),
    Way("eager tf32", "tf32"),
    Way("eager AMP f16", "f16"),
    Way("channels_last tf32", "tf32", last=True),
    Way("channels_last AMP f16", "f16", last=True),
    Way("channels_last AMP bf16", "bf16", last=True),
    Way("compile AMP f16", "f16", last=True, compiled=True),
    Way("compile tf32", "tf32", last=True, compiled=True),
]


def compared(name, module, image, folder):
    """Our outputs in every precision beside PyTorch's in f32, and PyTorch's own in that precision beside the same."""
    with torch.inference_mode():

        def theirs(precision):
            results = Way("", precision).runner(module, image, 1)()
            return {key: x.float().numpy() for key, x in zip(module.outputs, results)}

        exact, found = theirs("f32"), {}
        for precision in outputs.LIMITS:
            path = Path(folder) / f"outputs-{precision}" / f"{name}.safetensors"
            if not path.exists():
                continue
            own = outputs.compare(theirs(precision), exact, precision) if precision != "f32" else None
            found[precision] = outputs.compare(outputs.read(path), exact, precision, own)
            print(f"{name:14} {precision:5} {outputs.in_words(found[precision])}", flush=True)
            if own:
                found[precision]["own"] = own["apart"]
                print(f"{name:14} PyTorch's own {precision}: {outputs.in_words(own)}", flush=True)
        if hasattr(module, "proposals"):
            found.get("f32", {})["proposals"] = module.proposals(image.cuda())
    return found


def measure(name, way, batch, runs, row, on_host, image):
    """Notes time and memory of a way in its row; the network is copied anew, so that no way has what another left."""
    try:
        gc.collect()
        torch.cuda.empty_cache()
        module = copy.deepcopy(on_host).cuda()
        torch.cuda.reset_peak_memory_stats()
        with torch.inference_mode():
            row["median_ms"][way.name] = timed(way.runner(module, image, batch), runs)
        row["peak_mib"][way.name] = torch.cuda.max_memory_allocated() / 2**20
        cells = f"{row['median_ms'][way.name]:9.3f} ms, at most {row['peak_mib'][way.name]:.0f} MiB"
    except Exception as error:  # whatever a way cannot do
        row["left_out"][way.name] = (str(error).splitlines() or [type(error).__name__])[0][:120]
        cells = f"left out: {row['left_out'][way.name]}"
    print(f"{name:14} {batch} {way.name:24} {cells}", flush=True)
    if way.compiled:
        torch.compiler.reset()


def networks(args):
    """Everything but training; writes after each step, since time may be up."""
    found = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "outputs": {}}
    found["precisions"] = {way.name: way.precision for way in WAYS}
    rows = {(name, batch): {"network": name, "batch": batch, "median_ms": {}, "peak_mib": {}, "left_out": {}}
            for name in args.only for batch in BATCHES}

    def save():
        if args.json:
            Path(args.json).write_text(json.dumps({**found, "rows": list(rows.values())}, indent=1))

    for name in args.only:
        module, image, _ = make(name)
        if args.ours:
            found["outputs"][name] = compared(name, copy.deepcopy(module).cuda(), image, args.ours)
        for way in [way for way in WAYS if way.compiled == args.compile]:
            for batch in BATCHES:
                measure(name, way, batch, args.runs, rows[name, batch], module, image)
                save()
    others = [f"{name} in {precision}" for name, all_ in found["outputs"].items()
              for precision, one in all_.items() if not one["agree"]]
    return f"other outputs than PyTorch's: {', '.join(others)}" if others else None


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


def training_steps(batch, last, device="cuda"):
    """What does so many steps of Adam on the L1 of a batch that is there."""
    module = Trunk().to(device).train()
    image, target = torch.rand(batch, 3, 128, 128, device=device), torch.rand(batch, 128, 32, 32, device=device)
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
    parser.add_argument("--ours", help="folder with outputs-PRECISION of `lixelscope bench --outputs`")
    parser.add_argument("--training", action="store_true", help="time training steps instead")
    parser.add_argument("--compile", action="store_true", help="time what torch.compile makes, and nothing else")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    sys.exit(training(args.json) if args.training else networks(args))


if __name__ == "__main__":
    main()
