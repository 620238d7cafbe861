"""A step of training by PyTorch on the processor, for `cargo bench --bench training -- --peer "python tests/peers/step.py"`.

Does one for each line that it reads, and answers with the seconds it took and the seconds on a processor.
"""

import os
import sys
import time

import torch

from gpu import training_steps

torch.set_num_threads(len(os.sched_getaffinity(0)))
steps = training_steps(8, last=False, device="cpu")
for _ in sys.stdin:
    start = time.perf_counter(), time.process_time()
    steps(1)
    print(time.perf_counter() - start[0], time.process_time() - start[1], flush=True)
