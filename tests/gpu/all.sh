#!/usr/bin/env bash
# Everything that is to be known of a machine with an NVIDIA GPU, in one go: golden cases and comparisons with the
# processor in every precision, accuracy in mm, times with the floor beside them, PyTorch beside them, frames a second,
# memory, training, kernels. Writes results/gpu.json and results/gpu.txt (or where the first argument says).
#
#     bash tests/gpu/all.sh [FOLDER]
#
# From the project (builds first where there is cargo), or from a kit that pack.sh made (builds nothing). What matters
# most comes first, and no step begins once BUDGET seconds are used up (1500; a build does not count), nor runs longer
# than LIMIT seconds (540). The same command in the same folder goes on where the last one stopped; AGAIN=1 starts anew.
# STEPS="bench peers" does a part (compile, networks, golden, bench, peers, compiled, training, profile, people),
# PRECISIONS="tf32 f16" some precisions. The table is made of whatever is in the folder.
#
# Without a GPU it does what needs none, and says what it leaves out: every kernel compiled for every GPU by NVRTC, the
# kernels on the processor beside their twins, the networks' outputs beside PyTorch's, the tests of the table.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
out=$(mkdir -p "${1:-results}" && cd "${1:-results}" && pwd)
runs=${RUNS:-30} budget=${BUDGET:-1500} limit=${LIMIT:-540}
precisions=(${PRECISIONS:-tf32 f16 f32 bf16})
steps=" ${STEPS:-compile networks golden bench peers compiled training profile people} "
wants() { [[ $steps == *" $1 "* ]]; }
[ -z "${AGAIN:-}" ] || rm -f "$out/steps.txt"
touch "$out/steps.txt"

# Notes how a step ended: the last word on it counts.
note() {
    local others
    others=$(grep -v "^$1 " "$out/steps.txt")
    printf '%s\n' ${others:+"$others"} "$1 $2 $3" >"$out/steps.txt"
}

failed=()
# A step's output goes to a file, its last lines here; a step that fails does not keep the others from running.
step() {
    local name=$1 left=$((budget - SECONDS)) started=$SECONDS status
    shift
    if grep -q "^$name passed" "$out/steps.txt"; then
        echo "== $name: passed before"
        return
    fi
    if [ "$left" -lt 15 ]; then
        echo "== $name: skipped, the budget of $budget s is used up"
        note "$name" skipped "the budget of $budget s was used up"
        return
    fi
    echo "== $name ($left s left)"
    timeout "$((left < limit ? left : limit))" "$@" >"$out/$name.log" 2>&1
    status=$?
    if [ $status = 0 ]; then
        tail -n "${LINES_SHOWN:-4}" "$out/$name.log"
        note "$name" passed "$((SECONDS - started)) s"
    else
        echo "FAILED (exit $status$([ $status = 124 ] && echo ', its time was up')), $out/$name.log ends:"
        tail -n 15 "$out/$name.log"
        note "$name" failed "exit $status after $((SECONDS - started)) s"
        failed+=("$name")
    fi
}

leave_out() {
    echo "== $1: left out, $2"
    note "$1" left-out "$2"
}

# CUDA's and cuDNN's libraries: those of the system, and of any PyTorch.
libraries=$(python3 - 2>/dev/null <<'PYTHON'
import glob, os, site, sys
folders = set(site.getsitepackages() + [site.getusersitepackages()] + sys.path)
found = {os.path.dirname(f) for d in folders for f in glob.glob(d + "/nvidia/**/lib*.so*", recursive=True)}
print(":".join(sorted(found)))
PYTHON
)
for folder in /usr/local/cuda*/lib64 /usr/lib/x86_64-linux-gnu ${CUDA_HOME:+"$CUDA_HOME/lib" "$CUDA_HOME/lib64"}; do
    [ -d "$folder" ] && libraries="$libraries:$folder"
done
# NVRTC of every version that is here.
nvrtc() {
    tr : '\n' <<<"$libraries" | while read -r folder; do
        [ -z "$folder" ] || find "$folder/" -maxdepth 1 -name 'libnvrtc.so.1[2-9]' 2>/dev/null
    done | awk -F/ '!seen[$NF]++' | paste -sd :
}

without_gpu() {
    echo "no NVIDIA GPU is here: what needs none is done"
    if ! command -v cargo >/dev/null || [ ! -f "$root/Cargo.toml" ]; then
        echo "not even that without the project and cargo" >&2
        exit 3
    fi
    cd "$root" || exit 3
    budget=${BUDGET:-5400} limit=${LIMIT:-3600}
    local compilers fetched
    # CUDA 13's does not know sm_70.
    fetched=$(bash "$here/nvrtc.sh" "$root/target/nvrtc") && libraries="$libraries:$(dirname "$fetched")"
    compilers=$(nvrtc)
    if [ -n "$compilers" ]; then
        LINES_SHOWN=12 step kernels-compile env LIXELSCOPE_NVRTC="$compilers" \
            cargo test --release --locked --lib every_kernel_compiles -- --nocapture
    else
        leave_out kernels-compile "no NVRTC is here, and none could be fetched"
    fi
    step kernels-twins cargo test --release --locked --lib -- nets::cuda:: train::gpu:: --skip every_kernel_compiles
    step golden cargo test --release --locked --test reference -- --nocapture
    step table python3 "$here/table_test.py"
    if python3 -c 'import torch, torchvision' 2>/dev/null; then
        step build cargo build --release --locked
        LINES_SHOWN=8 step outputs python3 "$root/tests/peers/compare.py" --rounds 0 --json "$out/outputs.json"
    else
        leave_out outputs "there is no PyTorch (with torchvision) here"
    fi
    for name in networks "golden in ${precisions[*]}" bench peers compiled training profile people; do
        echo "== $name on a GPU: left out, there is none"
    done
    [ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
    exit 0
}
nvidia-smi -L >/dev/null 2>&1 || without_gpu

if [ -x "$root/bin/lixelscope" ]; then
    bin=$root/bin
elif [ -x "$root/target/gpu-kit/bin/lixelscope" ] && ! command -v cargo >/dev/null; then
    bin=$root/target/gpu-kit/bin
else
    bash "$here/pack.sh" "$root/target/gpu-kit" || exit 1
    bin=$root/target/gpu-kit/bin
    SECONDS=0
fi
export GOLDEN_DIR=$root/tests/golden
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
missing=$(ldd "$bin/lixelscope" | grep 'not found')
if [ -n "$missing" ]; then
    echo "these libraries are missing here, so nothing can run (CUDA's major version must be that of the build):" >&2
    echo "$missing" >&2
    exit 3
fi
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm --format=csv,noheader | tee "$out/device.txt"

compilers=$(nvrtc)
wants compile && LINES_SHOWN=8 step kernels-compile env ${compilers:+"LIXELSCOPE_NVRTC=$compilers"} "$bin/test-lixelscope" \
    every_kernel_compiles the_linked_library --nocapture
wants networks && step networks env LIXELSCOPE_GPU_REPORT="$out/accuracy.json" "$bin/test-gpu" --skip training:: \
    --test-threads 1 --nocapture
wants golden && for precision in "${precisions[@]}"; do
    step "golden-$precision" env LIXELSCOPE_PRECISION="$precision" "$bin/test-reference" --test-threads 1 --nocapture
done
wants bench && for precision in "${precisions[@]}"; do
    LINES_SHOWN=60 step "bench-$precision" "$bin/lixelscope" bench --backend cuda --precision "$precision" --runs "$runs" \
        --batch 1,4 --outputs "$out/outputs-$precision" --json "$out/bench-$precision.json"
done
if ! wants peers && ! wants compiled; then
    :
elif python3 -c 'import torch, torchvision; assert torch.cuda.is_available()' 2>/dev/null; then
    wants peers && LINES_SHOWN=60 step peers python3 "$root/tests/peers/gpu.py" --runs "$runs" --ours "$out" \
        --json "$out/peers.json"
    wants compiled && LINES_SHOWN=30 step peers-compile python3 "$root/tests/peers/gpu.py" --runs "$runs" --compile \
        --json "$out/peers-compile.json"
else
    leave_out peers "there is no PyTorch with CUDA (and torchvision) here"
fi
# A step of training is that of the processor; then the whole of it for a minute, and what it wrote is read.
if wants training; then
    for test in a_step_is_that_of_the_processor two_hundred_steps samples_a_second; do
        LINES_SHOWN=24 step "training-$test" env LIXELSCOPE_TRAINING_REPORT="$out/training.json" \
            "$bin/test-gpu" "training::$test" --test-threads 1 --nocapture
    done
    processors=$(nproc)
    train=("$bin/lixelscope" train mesh --backend cuda --out "$out/train-mesh" --samples 1000000 --batch 256
        --makers $((processors > 2 ? processors - 1 : 1)) --checkpoint-every 20)
    # It would go on for hours: that its time is up is how it ends.
    LINES_SHOWN=14 step training-mesh bash -c 'out=$1; shift; rm -rf "$out"; timeout 75 "$@"; [ $? = 124 ] || exit 1
        rm -f "$out"/*.safetensors; grep mpjpe "$out/curves.csv" && grep samples_per_sec "$out/curves.csv"' \
        _ "$out/train-mesh" "${train[@]}"
    python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null &&
        LINES_SHOWN=12 step peers-training python3 "$root/tests/peers/gpu.py" --training --json "$out/peers-training.json"
fi
wants profile && for precision in "${precisions[@]}"; do
    step "profile-$precision" "$bin/lixelscope" bench --backend cuda --precision "$precision" --runs 10 --batch 1,4 \
        --no-graphs --profile --json "$out/profile-$precision.json"
done
# Accuracy with real weights, where the user has some: the same frames in every precision.
if ! wants people; then
    :
elif "$bin/lixelscope" doctor ${LIXELSCOPE_MODELS:+--models "$LIXELSCOPE_MODELS"} | grep -q 'ready.*--estimator body'; then
    for precision in "${precisions[@]}"; do
        step "run-$precision" "$bin/lixelscope" run --source synthetic:7 --frames 24 --obj --backend cuda \
            --precision "$precision" --box 220,40,200,420 --out "$out/run-$precision"
    done
else
    leave_out people "there are no weights (formula weights are compared above)"
fi
python3 "$here/table.py" "$out" | tee "$out/gpu.txt"
[ ${#failed[@]} = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
