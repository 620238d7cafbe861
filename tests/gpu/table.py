"""Puts what all.sh measured into one JSON (gpu.json) and one table: table.py FOLDER PRECISION..."""

import json
import math
import sys
from pathlib import Path


def read(path):
    return json.loads(path.read_text()) if path.exists() else None


def vertices(path):
    return [tuple(map(float, line.split()[1:4])) for line in path.read_text().splitlines() if line.startswith("v ")]


def mesh_mm(reference, folder):
    """Mean and greatest distance of the vertices of two runs over the same frames, millimetres."""
    distances = []
    for path in sorted(reference.glob("*.obj")):
        other = folder / path.name
        if other.exists():
            distances += [math.dist(a, b) * 1e3 for a, b in zip(vertices(path), vertices(other))]
    return {"mean_mm": sum(distances) / len(distances), "max_mm": max(distances)} if distances else None


def main():
    out, precisions = Path(sys.argv[1]), sys.argv[2:]
    device = (out / "device.txt").read_text().strip() if (out / "device.txt").exists() else "unknown"
    result = {"device": device, "accuracy": read(out / "accuracy.json"), "peers": read(out / "peers.json")}
    result["training"] = read(out / "training.json")
    result["peers_training"] = read(out / "peers-training.json")
    result["bench"] = {p: read(out / f"bench-{p}.json") for p in precisions}
    result["eager"] = {p: read(out / f"eager-{p}.json") for p in precisions}
    exact = out / "run-f32"
    result["accuracy_on_people"] = {p: mesh_mm(exact, out / f"run-{p}") for p in precisions if p != "f32"}
    (out / "gpu.json").write_text(json.dumps(result, indent=1))

    print(device)
    for precision, bench in result["bench"].items():
        if bench and bench["peak"]:
            peak = bench["peak"]
            print(f"{precision}: at best {peak['gflops'] / 1e3:.1f} TFLOP/s, {peak['gigabytes_per_sec']:.0f} GB/s")
            slow = [way["name"] for way in bench["ways"] if way["slow"]]
            if slow:
                print(f"{precision}: NO LIBRARY DOES {slow}")

    print("\nmilliseconds, median; floor: operations and bytes at the best rates")
    print(f"{'network':14} {'batch':>5} {'precision':>9} {'graph':>9} {'eager':>9} {'floor':>9} {'x floor':>8}")
    peers = (result["peers"] or {}).get("rows", [])
    best_ours = {}
    for precision, bench in result["bench"].items():
        for row in (bench or {}).get("rows", []):
            if row["stage"] != "total":
                continue
            key = row["network"], row["batch"]
            eager = ((result["eager"][precision] or {}).get("rows")) or []
            eager = [r["median_ms"] for r in eager if (r["network"], r["batch"], r["stage"]) == (*key, "total")]
            floor = max(row["floor"].values()) if row["floor"] else math.nan
            ms = row["median_ms"]
            best_ours[key] = min(ms, best_ours.get(key, math.inf))
            cells = f"{ms:9.3f} {eager[0] if eager else math.nan:9.3f} {floor:9.3f} {ms / floor:8.1f}"
            fps = f"  {row['fps']:.1f} frames a second" if row["fps"] else ""
            print(f"{key[0]:14} {key[1]:5} {precision:>9} {cells}{fps}")

    if peers:
        print("\nbeside PyTorch, milliseconds, median (its own transfer of the input included, as in ours)")
        ways = sorted({way for row in peers for way in row["median_ms"]})
        print(f"{'network':14} {'batch':>5} {'ours':>9}", *(f"{way:>24}" for way in ways), f"{'x best':>8}")
        for row in peers:
            ours = best_ours.get((row["network"], row["batch"]), math.nan)
            theirs = [row["median_ms"].get(way, math.nan) for way in ways]
            least = min((t for t in theirs if t == t), default=math.nan)
            cells = (f"{t:24.3f}" for t in theirs)
            print(f"{row['network']:14} {row['batch']:5} {ours:9.3f}", *cells, f"{least / ours:8.2f}")

    training = result["training"] or {}
    for network, found in training.get("a_step", {}).items():
        for precision, step in found.items():
            slope = f", slope {step['slope']:.3f}" if "slope" in step else ""
            print(f"training {network}, {precision}: gradient {step['gradient_apart']:.1e} from the processor's{slope}")
    rows = training.get("samples_per_sec", []) + ((result["peers_training"] or {}).get("rows") or [])
    for row in sorted(rows, key=lambda row: (row["network"], row["batch"])):
        print(f"training {row['network']:9} batch {row['batch']:4} {row['precision']:24} {row['per_sec']:9.1f} samples/s")

    print("\naccuracy, millimetres on the mesh")
    for what, found in (result["accuracy"] or {}).items():
        for precision, mm in found.items():
            print(f"{what}: {precision:5} mean {mm['mean_mm']:.4f}, at most {mm['max_mm']:.4f} (against the processor)")
    for precision, mm in result["accuracy_on_people"].items():
        if mm:
            print(f"people: {precision:5} mean {mm['mean_mm']:.4f}, at most {mm['max_mm']:.4f} (against f32)")

    for precision, bench in result["bench"].items():
        for profile in (bench or {}).get("profiles", []):
            total = sum(kernel["ms"] for kernel in profile["kernels"])
            print(f"\n{profile['network']}, batch {profile['batch']}, {precision}: kernels one by one, {total:.3f} ms")
            for kernel in profile["kernels"][:8]:
                print(f"  {kernel['ms']:8.4f} ms {kernel['count']:4} x {kernel['name']}")


if __name__ == "__main__":
    main()
