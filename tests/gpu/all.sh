#!/usr/bin/env bash
# Everything that is to be known of a machine with an NVIDIA GPU, in one go: golden cases and comparisons with the
# processor in every precision, accuracy in mm, times with the floor beside them, kernels, PyTorch beside them, frames a
# second. Writes results/gpu.json and results/gpu.txt (or where the first argument says).
#
#     bash tests/gpu/all.sh [FOLDER]
#
# From the project (builds first where there is cargo), or from a kit that pack.sh made (builds nothing). What cannot be
# done is said and left out: without PyTorch the comparison with it, without the libraries everything. STEPS="networks
# bench" does a part (compile, training, networks, golden, bench, eager, peers, people), PRECISIONS="tf32 f16" some precisions;
# a step is stopped after LIMIT seconds. The table is made of whatever is in the folder.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd)
runs=${RUNS:-30}
precisions=(${PRECISIONS:-f32 tf32 f16 bf16})
steps=" ${STEPS:-compile training networks golden bench eager peers people} "
wants() { [[ $steps == *" $1 "* ]]; }

if [ -x "$root/bin/lixelscope" ]; then
    bin=$root/bin
elif [ -x "$root/target/gpu-kit/bin/lixelscope" ] && ! command -v cargo >/dev/null; then
    bin=$root/target/gpu-kit/bin
else
    bash "$here/pack.sh" "$root/target/gpu-kit" || exit 1
    bin=$root/target/gpu-kit/bin
fi
export GOLDEN_DIR=$root/tests/golden

# CUDA's and cuDNN's libraries: those of the system, and of any PyTorch.
libraries=$(python3 - 2>/dev/null <<'PYTHON'
import glob, os, site, sys
folders = set(site.getsitepackages() + [site.getusersitepackages()] + sys.path)
found = {os.path.dirname(f) for d in folders for f in glob.glob(d + "/nvidia/**/lib*.so*", recursive=True)}
print(":".join(sorted(found)))
PYTHON
)
for folder in /usr/local/cuda*/lib64 /usr/lib/x86_64-linux-gnu; do
    [ -d "$folder" ] && libraries="$libraries:$folder"
done
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
missing=$(ldd "$bin/lixelscope" | grep 'not found')
if [ -n "$missing" ]; then
    echo "these libraries are missing here, so nothing can run (CUDA's major version must be that of the build):" >&2
    echo "$missing" >&2
    exit 3
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | tee "$out/device.txt"

failed=()
# A step's output goes to a file, its last lines here; a step that fails does not keep the others from running.
step() {
    local name=$1
    shift
    echo "== $name"
    if timeout "${LIMIT:-540}" "$@" >"$out/$name.log" 2>&1; then
        tail -n "${LINES_SHOWN:-4}" "$out/$name.log"
    else
        echo "FAILED (exit $?), $out/$name.log ends:"
        tail -n 15 "$out/$name.log"
        failed+=("$name")
    fi
}

wants compile && step kernels-compile "$bin/test-lixelscope" every_kernel_compiles_for_every_gpu
# First what is known soonest: whether a step of training is that of the processor.
if wants training; then
    export LIXELSCOPE_TRAINING_REPORT="$out/training.json"
    rm -f "$LIXELSCOPE_TRAINING_REPORT"
    for test in a_step_is_that_of_the_processor two_hundred_steps samples_a_second; do
        LINES_SHOWN=24 step "training-$test" "$bin/test-gpu" "training::$test" --test-threads 1 --nocapture
    done
    # The whole of it for a minute, and what it wrote is read.
    processors=$(nproc)
    rm -rf "$out/train-mesh"
    timeout 75 "$bin/lixelscope" train mesh --backend cuda --out "$out/train-mesh" --samples 1000000 --batch 256 \
        --makers $((processors > 2 ? processors - 1 : 1)) --checkpoint-every 20 >"$out/train-mesh.log" 2>&1
    LINES_SHOWN=14 step training-mesh grep mpjpe "$out/train-mesh/curves.csv"
    LINES_SHOWN=3 step training-speed grep samples_per_sec "$out/train-mesh/curves.csv"
    rm -f "$out"/train-mesh/*.safetensors
fi
wants networks && step networks env LIXELSCOPE_GPU_REPORT="$out/accuracy.json" "$bin/test-gpu" --skip training:: --test-threads 1 --nocapture
for precision in "${precisions[@]}"; do
    wants golden && step "golden-$precision" env LIXELSCOPE_PRECISION="$precision" "$bin/test-reference" --test-threads 1 --nocapture
    wants bench && LINES_SHOWN=60 step "bench-$precision" "$bin/lixelscope" bench --backend cuda --precision "$precision" \
        --runs "$runs" --batch 1,4 --profile --json "$out/bench-$precision.json"
    wants eager && step "eager-$precision" "$bin/lixelscope" bench --backend cuda --precision "$precision" --runs 10 --batch 1,4 \
        --no-graphs --json "$out/eager-$precision.json"
done
if ! wants peers; then
    :
elif python3 -c 'import torch, torchvision; assert torch.cuda.is_available()' 2>/dev/null; then
    LINES_SHOWN=12 step peers-training python3 "$root/tests/peers/gpu.py" --training --json "$out/peers-training.json"
    LINES_SHOWN=40 step peers python3 "$root/tests/peers/gpu.py" --runs "$runs" --json "$out/peers.json"
else
    echo "== peers: left out, there is no PyTorch with CUDA (and torchvision) here"
fi
# Accuracy with real weights, where the user has some: the same frames in every precision.
if ! wants people; then
    :
elif "$bin/lixelscope" doctor ${LIXELSCOPE_MODELS:+--models "$LIXELSCOPE_MODELS"} | grep -q 'ready.*--estimator body'; then
    for precision in "${precisions[@]}"; do
        step "run-$precision" "$bin/lixelscope" run --source synthetic:7 --frames 24 --obj --backend cuda \
            --precision "$precision" --box 220,40,200,420 --out "$out/run-$precision"
    done
else
    echo "== accuracy on people: left out, there are no weights (formula weights are compared above)"
fi
python3 "$here/table.py" "$out" "${precisions[@]}" | tee "$out/gpu.txt"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
