"""Tests table.py with made-up results: python3 tests/gpu/table_test.py"""

import json
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import table  # noqa: E402


def row(network, batch, ms, fps=None, stage="total"):
    floor = {"operations_ms": ms / 4, "bytes_ms": ms / 8}
    return {"network": network, "batch": batch, "stage": stage, "median_ms": ms, "p95_ms": ms * 1.1, "floor": floor,
            "fps": fps}


def bench(rows, mib=500.0):
    networks = [{"network": name, "peak_gpu_mib": mib} for name in dict.fromkeys(r["network"] for r in rows)]
    return {"peak": {"gflops": 4e5, "gigabytes_per_sec": 4000.0}, "ways": [], "rows": rows, "networks": networks}


class Table(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = Path(folder.name)

    def write(self, name, value):
        (self.out / name).write_text(value if isinstance(value, str) else json.dumps(value))

    def result(self):
        result = table.load(self.out)
        result["goals"] = table.goals(result)
        return result

    def verdicts(self):
        return {(g["what"], g["measure"].split(" (")[0]): (g["value"], g["verdict"]) for g in self.result()["goals"]}

    def measured(self):
        tf32 = [row("i2l_body", 1, 2.0), row("i2l_body", 1, 0.1, stage="mesh net"), row("path_1080p", 1, 44.0, 90.0),
                row("path_1080p", 4, 80.0, 50.0), row("rootnet", 1, 1.0), row("rootnet", 4, 1.0)]
        self.write("bench-tf32.json", bench(tf32))
        self.write("bench-f16.json", bench([row("i2l_body", 1, 1.0), row("path_1080p", 4, 60.0, 66.7)], 300.0))
        self.write("profile-f16.json", {**bench([row("i2l_body", 1, 1.7)]), "profiles": [
            {"network": "i2l_body", "batch": 1, "kernels": [{"name": "a_kernel", "count": 3, "ms": 0.5}]}]})
        self.write("peers.json", {
            "precisions": {"eager tf32": "tf32", "channels_last AMP f16": "f16", "compile AMP f16": "f16"},
            "outputs": {"i2l_body": {"f16": {"apart": {"bins": 0.3}, "limits": {"bins": 0.25}, "agree": False, "own": {"bins": 0.1}}}},
            "rows": [
                {"network": "i2l_body", "batch": 1, "median_ms": {"eager tf32": 5.0, "channels_last AMP f16": 3.0},
                 "peak_mib": {"eager tf32": 900.0}},
                {"network": "rootnet", "batch": 1, "median_ms": {"eager tf32": 1.9}, "peak_mib": {}},
                {"network": "rootnet", "batch": 4, "median_ms": {"eager tf32": 1.9}, "peak_mib": {},
                 "left_out": {"compile tf32": "it cannot"}}]})
        self.write("peers-compile.json", {"precisions": {"compile AMP f16": "f16"}, "outputs": {}, "rows": [
            {"network": "i2l_body", "batch": 1, "median_ms": {"compile AMP f16": 1.1}, "peak_mib": {}}]})
        self.write("device.txt", "some GPU\n")
        self.write("steps.txt", "bench-tf32 passed 30 s\nprofile-bf16 skipped the budget is used up\n")

    def test_goals_are_judged_row_by_row_in_one_precision(self):
        self.measured()
        found = self.verdicts()
        self.assertEqual(found["i2l_body, batch 1", "x PyTorch eager, both tf32"], (2.5, "reached"))
        # The fastest is a compiled one in f16: beside our f16, not our tf32 and not the sum of its stages.
        fastest = found["i2l_body, batch 1", "x its fastest"]
        self.assertAlmostEqual(fastest[0], 1.1)
        self.assertEqual(fastest[1], "MISSED")
        self.assertEqual(found["rootnet, batch 4", "x PyTorch eager, both tf32"], (1.9, "MISSED"))
        self.assertEqual(found["rootnet, batch 4", "x its fastest"], (1.9, "reached"))
        self.assertEqual(found["maskrcnn_800, batch 1", "x PyTorch eager, both tf32"], (None, "not measured"))
        # A fastest that may yet be beaten by what was not timed is no goal reached.
        self.assertEqual(found["rootnet, batch 1", "x its fastest"], (None, "not measured"))
        self.assertEqual(found["path_1080p, 1 people", "frames a second, tf32"], (90.0, "reached"))
        self.assertEqual(found["path_1080p, 4 people", "frames a second, tf32"], (50.0, "MISSED"))
        self.assertEqual(found["path_1080p, 4 people", "frames a second, f16"], (66.7, "reached"))

    def test_the_table_says_it_all(self):
        self.measured()
        text = "\n".join(table.lines(self.result()))
        text_in_one = " ".join(text.split())
        for part in ["some GPU", "step profile-bf16: skipped the budget is used up", "4 goals reached, 4 missed, 11 not",
                     "f16 DIFFERS", "bins 0.3 of 0.25 (0.1)", "a_kernel", "tf32: at best 400.0 TFLOP/s"]:
            self.assertIn(part, text_in_one)
        self.assertNotIn("bench-tf32", text)  # what passed needs no word
        line = next(line for line in text.splitlines() if line.endswith("compile AMP f16"))
        # Floor, ours, theirs, ratio, memory of both.
        self.assertEqual(line.split()[:9], ["i2l_body", "1", "f16", "0.250", "1.000", "1.100", "1.10", "300", "-"])

    def test_nothing_measured_is_nothing_reached(self):
        found = self.result()["goals"]
        self.assertEqual({g["verdict"] for g in found}, {"not measured"})
        self.assertEqual(len(found), 2 * 2 * len(table.NETWORKS) + 2)
        self.assertIn("no NVIDIA GPU", "\n".join(table.lines(self.result())))


if __name__ == "__main__":
    unittest.main()
