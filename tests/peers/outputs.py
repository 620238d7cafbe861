"""Holds what two programs made of the same input with the same weights against each other.

    python3 tests/peers/outputs.py    tests itself (numpy is all that it needs)
"""

import json

import numpy as np

# What each precision may differ by. f32: features by 1e-3 of the largest, coordinates by 0.01 bins (golden cases'), boxes
# by 0.1 px. Factors of 10 bits of fraction (tf32, f16) are rounded by 2^-11 each, which adds up over 50 layers to some
# 3e-3 of a feature and to hundredths of a bin; factors of 7 bits (bf16) are eight times coarser. Boxes that two programs
# suppress differently, because two overlaps or two scores differ by less than the last digits, are counted.
LIMITS = {
    "f32": {"feature": 1e-3, "bins": 0.01, "gamma": 1e-3, "px": 0.1, "score": 1e-3, "others": 0.02},
    "tf32": {"feature": 2e-2, "bins": 0.25, "gamma": 2e-2, "px": 2.0, "score": 2e-2, "others": 0.3},
    "f16": {"feature": 2e-2, "bins": 0.25, "gamma": 2e-2, "px": 2.0, "score": 2e-2, "others": 0.3},
    "bf16": {"feature": 1e-1, "bins": 2.0, "gamma": 1e-1, "px": 8.0, "score": 1e-1, "others": 0.8},
}


def read(path):
    """The f32 tensors of a safetensors file, by name."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", f"{path}: {name} is {entry['dtype']}"
            start, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return tensors


def same_objects(ours, theirs, px, score):
    """Greatest differences of boxes and scores among objects that both found, and the part that only one of them did."""
    near = np.abs(ours["boxes"][:, None] - theirs["boxes"][None]).max(2)
    alike = (near < px) & (ours["labels"][:, None] == theirs["labels"][None])
    alike &= np.abs(ours["scores"][:, None] - theirs["scores"][None]) < score
    pairs = [(i, row.argmax()) for i, row in enumerate(alike) if row.any()]
    most = max(len(ours["boxes"]), len(theirs["boxes"]))
    apart = {"others": 1 - len({j for _, j in pairs}) / most} if most else {"others": 0.0}
    if pairs:
        apart["px"] = float(max(near[pair] for pair in pairs))
        apart["score"] = float(max(abs(ours["scores"][i] - theirs["scores"][j]) for i, j in pairs))
    return apart


def compare(ours, theirs, precision, own=None):
    """Greatest differences by what they are measured in, how large each may be, and whether all are within.

    `own` is what PyTorch itself differs by where it computes in this precision. Random weights give scores that lie close
    together, so coarser numbers let other boxes win: as many as of its own, and half as many again, may be others.
    """
    limits = dict(LIMITS[precision])
    if own and "others" in own["apart"]:
        limits["others"] = max(limits["others"], 1.5 * own["apart"]["others"])
    assert set(ours) == set(theirs), f"{sorted(ours)} and {sorted(theirs)}"
    if "boxes" in ours:
        apart = same_objects(ours, theirs, limits["px"], limits["score"])
        counts = {"objects": len(ours["boxes"]), "their_objects": len(theirs["boxes"])}
        # Nothing found is nothing compared.
        agree = min(counts.values()) > 0 and apart["others"] <= limits["others"]
        return {**counts, "apart": apart, "limits": {"others": limits["others"]}, "agree": agree}
    apart = {}
    for name, tensor in ours.items():
        other = theirs[name]
        assert tensor.shape == other.shape, f"{name}: {tensor.shape} and {other.shape}"
        kind = {"feature": "feature", "gamma": "gamma"}.get(name, "bins")
        # Features and gamma have no unit: in parts of the largest.
        unit = 1.0 if kind == "bins" else max(float(np.abs(other).max()), 1e-30)
        # What is not a number is not equal to anything.
        most = np.nan_to_num(np.abs(tensor - other), nan=np.inf).max()
        apart[kind] = max(apart.get(kind, 0.0), float(most) / unit)
    spread = {name: float(other.std()) for name, other in theirs.items()}
    agree = all(value <= limits[kind] for kind, value in apart.items())
    return {"apart": apart, "limits": {kind: limits[kind] for kind in apart}, "spread": spread, "agree": agree}


def in_words(found):
    """One line."""
    parts = [f"{kind} {value:.2g}" for kind, value in found["apart"].items()]
    if "objects" in found:
        parts.insert(0, f"{found['objects']} objects and {found['their_objects']}")
    return f"{'as' if found['agree'] else 'NOT AS'} PyTorch's ({', '.join(parts)})"


def self_test():
    coords = {"coords": np.array([[1.0, 2.0]], "f4"), "gamma": np.array([4.0], "f4")}
    assert compare(coords, coords, "f32")["agree"]
    moved = {**coords, "coords": coords["coords"] + np.float32(0.1)}
    found = compare(moved, coords, "f32")
    assert not found["agree"] and abs(found["apart"]["bins"] - 0.1) < 1e-3
    assert compare(moved, coords, "f16")["agree"]
    lost = {**coords, "gamma": np.array([np.nan], "f4")}
    assert not compare(lost, coords, "bf16")["agree"]
    boxes = {"boxes": np.array([[0, 0, 10, 10], [5, 5, 20, 20]], "f4"), "scores": np.array([0.9, 0.8], "f4")}
    boxes["labels"] = np.array([1, 2], "f4")
    assert compare(boxes, boxes, "f32")["apart"] == {"others": 0.0, "px": 0.0, "score": 0.0}
    other = {**boxes, "labels": np.array([1, 3], "f4")}
    found = compare(other, boxes, "f32")
    assert found["apart"]["others"] == 0.5 and not found["agree"]
    own = {"apart": {"others": 0.4}}
    assert compare(other, boxes, "f16", own)["agree"] and not compare(other, boxes, "f16")["agree"]
    none = {name: tensor[:0] for name, tensor in boxes.items()}
    assert not compare(none, boxes, "bf16")["agree"] and not compare(none, none, "bf16")["agree"]
    print("8 passed, 0 failed")


if __name__ == "__main__":
    self_test()
