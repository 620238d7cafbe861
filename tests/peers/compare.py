"""Times the networks side by side: lixelscope, PyTorch, ONNX Runtime; CPU, f32, batch 1.

    pip install -r tests/peers/requirements.txt
    cargo build --release
    python tests/peers/compare.py --threads 2

Every round runs all of them one after the other, so that a busy moment of the machine meets each alike. Printed are
the best run of all, which other work on the machine disturbs least, and the median over the rounds of each round's
median. The project's own tests do not need this.
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


def timed(run, runs):
    """Best and median of the runs, milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times), statistics.median(times)


def lixelscope(binary, name, threads, runs):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [binary, "bench", "--backend", "cpu", "--only", name, "--batch", "1"]
        command += ["--threads", str(threads), "--runs", str(runs), "--json", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(out.read_text())["rows"]
    return next((r["best_ms"], r["median_ms"]) for r in rows if r["network"] == name and r["stage"] == "total")


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

    print(f"{args.threads} threads, {args.rounds} rounds of {args.runs} runs, milliseconds; ratios are ours to theirs")
    titles = ["lixelscope", "PyTorch", "ratio", "ONNX RT", "ratio"]
    print(f"{'network':14} {'':6}", *(f"{title:>10}" for title in titles), flush=True)
    for name in args.only:
        module, image, exports = make(name)
        ways = {
            "ours": lambda runs: lixelscope(args.binary, name, args.threads, runs),
            "torch": lambda runs: timed(lambda: module(image), runs),
        }
        if exports:
            session, feed = onnx_session(module, image, args.threads), {"image": image.numpy()}
            ways["onnx"] = lambda runs: timed(lambda: session.run(None, feed), runs)
        rounds = {way: [] for way in ways}
        with torch.inference_mode():
            for round in range(args.rounds + 1):
                for way, run in ways.items():
                    figures = run(args.runs if round else 1)
                    if round:  # the first one warms up
                        rounds[way].append(figures)
        for kind, pick in [("best", min), ("median", statistics.median)]:
            at = ["best", "median"].index(kind)
            ms = {way: pick(figures[at] for figures in all_) for way, all_ in rounds.items()}
            cells = [ms["ours"], ms["torch"], ms["ours"] / ms["torch"]]
            cells += [ms["onnx"], ms["ours"] / ms["onnx"]] if exports else []
            print(f"{name:14} {kind:6}", *(f"{cell:10.2f}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
