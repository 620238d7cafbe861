"""Times the networks in PyTorch on an NVIDIA GPU: eager, channels_last with AMP, torch.compile. tests/gpu/all.sh runs it.

    python tests/peers/gpu.py --runs 30 --json peers.json

The input is copied to the GPU and the result back in every run, as lixelscope's bench does. Ways that a network or an
installation cannot go are named and left out.
"""

import argparse
import json
import statistics
import time

import torch

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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json")
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
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
