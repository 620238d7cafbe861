"""Times the networks side by side: lixelscope, PyTorch, ONNX Runtime; CPU, f32, batch 1, the same input and weights.

    pip install -r tests/peers/requirements.txt
    cargo build --release
    python tests/peers/compare.py --threads 2

First both are held against each other: a network whose outputs differ by more than outputs.py allows makes this fail
(--rounds 0 does no more than that). Every round runs all of them one after the other, so that a busy moment of the
machine meets each alike. Printed are the best run of all, which other work on the machine disturbs least, and the median
over the rounds of each round's median. The project's own tests do not need this.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import outputs
from networks import NETWORKS, make


def timed(run, runs):
    """Best and median of the runs, milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times), statistics.median(times)


def bench(binary, name, threads, runs, folder):
    """What `lixelscope bench` says about the whole of a network, and leaves in the folder."""
    out = Path(folder) / "bench.json"
    command = [binary, "bench", "--backend", "cpu", "--only", name, "--batch", "1", "--outputs", folder]
    command += ["--threads", str(threads), "--runs", str(runs), "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads(out.read_text())["rows"]
    return next((r["best_ms"], r["median_ms"]) for r in rows if r["network"] == name and r["stage"] == "total")


def lixelscope(binary, name, threads, runs):
    with tempfile.TemporaryDirectory() as folder:
        return bench(binary, name, threads, runs, folder)


def compared(binary, name, threads, module, image):
    """Our outputs beside PyTorch's."""
    with tempfile.TemporaryDirectory() as folder:
        bench(binary, name, threads, 1, folder)
        ours = outputs.read(Path(folder) / f"{name}.safetensors")
    with torch.inference_mode():
        theirs = {key: x.float().numpy() for key, x in zip(module.outputs, module(image))}
        found = outputs.compare(ours, theirs, "f32")
        if hasattr(module, "proposals"):
            found["proposals"] = module.proposals(image)
    return found


def onnx_session(module, image, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "network.onnx")
        torch.onnx.export(module, (image,), path, input_names=["image"], dynamo=False)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def rounds_of(args, name, module, image, exports):
    """Best and median milliseconds of each way."""
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
    kinds = [("best", 0, min), ("median", 1, statistics.median)]
    return {
        kind: {way: pick(figures[at] for figures in all_) for way, all_ in rounds.items()} for kind, at, pick in kinds
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(Path(__file__).parents[2] / "target/release/lixelscope"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="0: compare the outputs and time nothing")
    parser.add_argument("--runs", type=int, default=5, help="runs of each in a round")
    parser.add_argument("--only", nargs="*", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--json", help="also write everything here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    if args.rounds:
        runs = f"{args.rounds} rounds of {args.runs} runs"
        print(f"{args.threads} threads, {runs}, milliseconds; ratios are ours to theirs")
        titles = ["lixelscope", "PyTorch", "ratio", "ONNX RT", "ratio"]
        print(f"{'network':14} {'':6}", *(f"{title:>10}" for title in titles), flush=True)
    rows = []
    for name in args.only:
        module, image, exports = make(name)
        row = {"network": name, "outputs": compared(args.binary, name, args.threads, module, image)}
        rows.append(row)
        print(f"{name:14} {outputs.in_words(row['outputs'])}", flush=True)
        if args.rounds:
            row["ms"] = rounds_of(args, name, module, image, exports)
            for kind, ms in row["ms"].items():
                cells = [ms["ours"], ms["torch"], ms["ours"] / ms["torch"]]
                cells += [ms["onnx"], ms["ours"] / ms["onnx"]] if exports else []
                print(f"{name:14} {kind:6}", *(f"{cell:10.2f}" for cell in cells), flush=True)
        if args.json:
            found = {"threads": args.threads, "torch": torch.__version__, "rows": rows}
            Path(args.json).write_text(json.dumps(found, indent=1))
    others = [row["network"] for row in rows if not row["outputs"]["agree"]]
    sys.exit(f"other outputs than PyTorch's: {', '.join(others)}" if others else 0)


if __name__ == "__main__":
    main()
