"""Puts what all.sh measured into one JSON (gpu.json) and one table: table.py FOLDER. table_test.py tests it."""

import json
import math
import sys
from pathlib import Path

PRECISIONS = ["f32", "tf32", "f16", "bf16"]

# What is to be reached: so many times as fast as PyTorch's eager way, and as its fastest of all; frames a second of the
# whole path at 1920x1080, the detector on every fourth, by people.
NETWORKS, BATCHES = ["i2l_body", "rootnet", "maskrcnn_800", "maskrcnn_320"], [1, 4]
EAGER, FASTEST = 2.0, 1.2
PATH, FRAMES_PER_SEC = "path_1080p", {1: 84.0, 4: 60.0}


def read(path):
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


def load(out):
    """Everything that was measured; `None` or empty where it was not."""
    device, steps = out / "device.txt", out / "steps.txt"
    peers = {"outputs": {}, "precisions": {}, "rows": []}
    for name in ["peers.json", "peers-compile.json"]:
        for key, value in (read(out / name) or {}).items():
            if key == "rows":
                peers["rows"] += value
            elif isinstance(value, dict):
                peers.setdefault(key, {}).update(value)
            else:
                peers[key] = value
    result = {"device": device.read_text().strip() if device.exists() else "no NVIDIA GPU"}
    result["steps"] = [line.split(maxsplit=2) for line in steps.read_text().splitlines()] if steps.exists() else []
    result["accuracy"] = read(out / "accuracy.json")
    result["accuracy_on_people"] = {p: mesh_mm(out / "run-f32", out / f"run-{p}") for p in PRECISIONS if p != "f32"}
    result["bench"] = {p: read(out / f"bench-{p}.json") for p in PRECISIONS}
    result["profile"] = {p: read(out / f"profile-{p}.json") for p in PRECISIONS}
    result["peers"] = peers
    result["training"] = read(out / "training.json")
    result["peers_training"] = read(out / "peers-training.json")
    return result


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


def totals(result, kind):
    """Rows of whole networks by precision, network and batch."""
    found = {}
    for precision, bench in result[kind].items():
        for row in (bench or {}).get("rows", []):
            if row["stage"] == "total":
                found[precision, row["network"], row["batch"]] = row
    return found


def peer_ways(result, network, batch, what="median_ms"):
    """A figure of each of PyTorch's ways."""
    found = {}
    for row in result["peers"]["rows"]:
        if (row["network"], row["batch"]) == (network, batch):
            found.update(row.get(what, {}))
    return found


def ratio(theirs, ours):
    return theirs / ours if theirs and ours else None


def verdict(value, goal):
    if value is None:
        return "not measured"
    return "reached" if value >= goal else "MISSED"


def goals(result):
    """Every goal: what, against what, the figure, the goal, and whether it is reached."""
    rows, found = totals(result, "bench"), []
    precision_of = result["peers"]["precisions"]

    def ours_ms(precision, network, batch):
        return rows.get((precision, network, batch), {}).get("median_ms")

    for network in NETWORKS:
        for batch in BATCHES:
            ways = peer_ways(result, network, batch)
            # Like beside like: what PyTorch computes in a precision stands beside ours in the same.
            times = ratio(ways.get("eager tf32"), ours_ms("tf32", network, batch))
            found.append((f"{network}, batch {batch}", "x PyTorch eager, both tf32", times, EAGER))
            fastest = min(ways, key=ways.get, default=None)
            precision = precision_of.get(fastest)
            times = ratio(ways.get(fastest), ours_ms(precision, network, batch))
            name = f"x its fastest ({fastest}), both {precision}" if fastest else "x PyTorch's fastest"
            tried = {**ways, **peer_ways(result, network, batch, "left_out")}
            if times and times >= FASTEST and not any(way.startswith("compile") for way in tried):
                times, name = None, f"{name}: {times:.2f} so far, without torch.compile"
            found.append((f"{network}, batch {batch}", name, times, FASTEST))
    for people, goal in FRAMES_PER_SEC.items():
        for precision in PRECISIONS:
            fps = (rows.get((precision, PATH, people)) or {}).get("fps")
            if fps is not None or precision == "tf32":  # the program's own choice
                found.append((f"{PATH}, {people} people", f"frames a second, {precision}", fps, goal))
    keys = ["what", "measure", "value", "goal"]
    return [{**dict(zip(keys, row)), "verdict": verdict(row[2], row[3])} for row in found]


def cell(value, width=9, digits=3):
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def floor_ms(row):
    return max(row["floor"].values()) if row.get("floor") else None


def memory_mib(bench, network):
    return next((c.get("peak_gpu_mib") for c in (bench or {}).get("networks", []) if c["network"] == network), None)


def lines_of_goals(found):
    yield "goals (ratios: how many times as fast as PyTorch, same run, same weights, same input)"
    for goal in found:
        value = cell(goal["value"], 8, 2)
        yield f"{goal['what']:22} {value} of {goal['goal']:5.1f}  {goal['verdict']:12} {goal['measure']}"
    counts = [sum(g["verdict"] == v for g in found) for v in ["reached", "MISSED", "not measured"]]
    yield "{} goals reached, {} missed, {} not measured".format(*counts)


def lines_of_networks(result):
    graphs, eager = totals(result, "bench"), totals(result, "profile")
    yield "milliseconds, median; alone: kernel by kernel, not as a graph; floor: operations and bytes at the best rates"
    yield f"{'network':15} {'batch':>5} {'numbers':>7} {'graph':>9} {'p95':>9} {'alone':>9} {'floor':>9} {'x floor':>8}"
    for (precision, network, batch), row in sorted(graphs.items(), key=lambda item: (item[0][1:], item[0][0])):
        alone = eager.get((precision, network, batch), {}).get("median_ms")
        ms, floor = row["median_ms"], floor_ms(row)
        cells = f"{cell(ms)} {cell(row.get('p95_ms'))} {cell(alone)} {cell(floor)} {cell(ratio(ms, floor), 8, 1)}"
        fps = f"  {row['fps']:.1f} frames a second" if row.get("fps") else ""
        yield f"{network:15} {batch:5} {precision:>7} {cells}{fps}"


def lines_of_peers(result):
    """Each precision of ours beside PyTorch's ways in the same."""
    rows = totals(result, "bench")
    precision_of = result["peers"]["precisions"]
    yield "beside PyTorch in the same precision, milliseconds, median, input and output copied in both; x: ours is so many"
    yield "times as fast; memory: at most held on the GPU, MiB (ours over both batches, theirs of that way)"
    titles = f"{'floor':>9} {'ours':>9} {'theirs':>9} {'x':>6} {'MiB':>7} {'theirs':>7}"
    yield f"{'network':15} {'batch':>5} {'numbers':>7} {titles}  their way"
    for network, batch in sorted({(row["network"], row["batch"]) for row in result["peers"]["rows"]}):
        ways, memory = (peer_ways(result, network, batch, what) for what in ["median_ms", "peak_mib"])
        for way, theirs in sorted(ways.items(), key=lambda item: (PRECISIONS.index(precision_of[item[0]]), item[1])):
            precision = precision_of[way]
            row = rows.get((precision, network, batch), {})
            ours = row.get("median_ms")
            mib = memory_mib(result["bench"].get(precision), network)
            cells = f"{cell(floor_ms(row))} {cell(ours)} {cell(theirs)} {cell(ratio(theirs, ours), 6, 2)}"
            cells += f" {cell(mib, 7, 0)} {cell(memory.get(way), 7, 0)}"
            yield f"{network:15} {batch:5} {precision:>7} {cells}  {way}"


def lines_of_memory(result):
    yield "GPU memory at most, MiB: weights, activations and workspaces of each network, both batches"
    names = dict.fromkeys(c["network"] for b in result["bench"].values() for c in (b or {}).get("networks", []))
    yield f"{'network':15}" + "".join(f"{p:>8}" for p in PRECISIONS)
    for name in names:
        yield f"{name:15}" + "".join(cell(memory_mib(result["bench"][p], name), 8, 0) for p in PRECISIONS)


def lines_of_outputs(result):
    yield "outputs beside PyTorch's in f32, same weights and input: greatest difference, what it may be, and PyTorch's own"
    for network, found in result["peers"]["outputs"].items():
        for precision, one in found.items():
            parts = []
            for kind, value in one["apart"].items():
                limit = f" of {one['limits'][kind]:.2g}" if kind in one["limits"] else ""
                own = f" ({one['own'][kind]:.2g})" if kind in one.get("own", {}) else ""
                parts.append(f"{kind} {value:.2g}{limit}{own}")
            word = "agrees" if one["agree"] else "DIFFERS"
            counts = f"{one['objects']} objects and {one['their_objects']}, " if "objects" in one else ""
            yield f"{network:15} {precision:5} {word:8} {counts}{', '.join(parts)}"


def lines_of_training(result):
    training = result["training"] or {}
    for network, found in training.get("a_step", {}).items():
        for precision, step in found.items():
            slope = f", slope {step['slope']:.3f}" if "slope" in step else ""
            yield f"training {network}, {precision}: gradient {step['gradient_apart']:.1e} from the processor's{slope}"
    rows = training.get("samples_per_sec", []) + ((result["peers_training"] or {}).get("rows") or [])
    for row in sorted(rows, key=lambda row: (row["network"], row["batch"])):
        yield f"training {row['network']:9} batch {row['batch']:4} {row['precision']:28} {row['per_sec']:9.1f} samples/s"


def lines_of_accuracy(result):
    yield "accuracy, millimetres on the mesh"
    for what, found in (result["accuracy"] or {}).items():
        for precision, mm in found.items():
            yield f"{what}: {precision:5} mean {mm['mean_mm']:.4f}, at most {mm['max_mm']:.4f} (against the processor)"
    for precision, mm in result["accuracy_on_people"].items():
        if mm:
            yield f"people: {precision:5} mean {mm['mean_mm']:.4f}, at most {mm['max_mm']:.4f} (against f32)"


def lines_of_profiles(result):
    for precision, bench in result["profile"].items():
        for profile in (bench or {}).get("profiles", []):
            total = sum(kernel["ms"] for kernel in profile["kernels"])
            yield f"{profile['network']}, batch {profile['batch']}, {precision}: kernels one by one, {total:.3f} ms"
            for kernel in profile["kernels"][:8]:
                yield f"  {kernel['ms']:8.4f} ms {kernel['count']:4} x {kernel['name']}"


def lines(result):
    yield result["device"]
    for precision, bench in result["bench"].items():
        if bench and bench.get("peak"):
            peak = bench["peak"]
            yield f"{precision}: at best {peak['gflops'] / 1e3:.1f} TFLOP/s, {peak['gigabytes_per_sec']:.0f} GB/s"
            slow = [way["name"] for way in bench["ways"] if way["slow"]]
            if slow:
                yield f"{precision}: NO LIBRARY DOES {slow}"
    for name, status, detail in (step + [""] * (3 - len(step)) for step in result["steps"]):
        if status != "passed":
            yield f"step {name}: {status} {detail}"
    yield ""
    yield from lines_of_goals(result["goals"])
    for part in [lines_of_networks, lines_of_peers, lines_of_memory, lines_of_outputs, lines_of_accuracy,
                 lines_of_training, lines_of_profiles]:
        yield ""
        yield from part(result)


def main():
    out = Path(sys.argv[1])
    result = load(out)
    result["goals"] = goals(result)
    (out / "gpu.json").write_text(json.dumps(result, indent=1))
    for line in lines(result):
        print(line)


if __name__ == "__main__":
    main()
