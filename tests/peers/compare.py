"""Times the networks side by side: lixelscope, PyTorch, ONNX Runtime; CPU, f32, batch 1.

    pip install -r tests/peers/requirements.txt
    cargo build --release
    python tests/peers/compare.py --threads 2

Every round runs all of them one after the other, so that a busy moment of the machine meets each alike; the figures
are medians over the rounds of each round's median. The project's own tests do not need this.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch

from networks import NETWORKS, make


def median_ms(run, runs):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def lixelscope(binary, name, threads, runs):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [binary, "bench", "--backend", "cpu", "--only", name, "--batch", "1"]
        command += ["--threads", str(threads), "--runs", str(runs), "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(out.read_text())["rows"]
    return next(row["median_ms"] for row in rows if row["network"] == name and row["stage"] == "total")


def onnx_session(module, image, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(module, (image,), path, input_names=["image"], dynamo=False)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(Path(__file__).parents[2] / "target/release/lixelscope"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=5, help="runs of each in a round")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(f"{args.threads} threads, {args.rounds} rounds of {args.runs} runs, medians in milliseconds")
    print(f"{'network':14} {'lixelscope':>10} {'PyTorch':>10} {'ratio':>6} {'ONNX RT':>10} {'ratio':>6}", flush=True)
    for name in args.only:
        module, image, exports = make(name)
        session = onnx_session(module, image, args.threads) if exports else None
        figures = {"ours": [], "torch": [], "onnx": []}
        with torch.inference_mode():
            for round in range(args.rounds + 1):
                runs = args.runs if round else 1  # the first round warms up
                torch_ms = median_ms(lambda: module(image), runs)
                onnx_ms = median_ms(lambda: session.run(None, {"image": image.numpy()}), runs) if session else None
                if round:
                    figures["torch"].append(torch_ms)
                    figures["onnx"].append(onnx_ms)
                    figures["ours"].append(lixelscope(args.binary, name, args.threads, runs))
        ours, torch_ms = (statistics.median(figures[key]) for key in ["ours", "torch"])
        row = f"{name:14} {ours:10.1f} {torch_ms:10.1f} {ours / torch_ms:6.2f}"
        if session:
            onnx_ms = statistics.median(figures["onnx"])
            row += f" {onnx_ms:10.1f} {ours / onnx_ms:6.2f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
