#!/usr/bin/env bash
# Builds what a machine with a GPU needs and packs it: pack.sh [FOLDER], by default target/gpu-kit. There,
#
#     bash FOLDER/tests/gpu/all.sh
#
# needs neither Rust nor the CUDA toolkit, only the driver and the libraries of CUDA and cuDNN (a PyTorch installation
# has them). Here the toolkit is needed, of the same major version as there; a GPU is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
kit=${1:-target/gpu-kit}
target=${CARGO_TARGET_DIR:-target}

cargo build --release --features cudnn --bin lixelscope
# The files that the tests were built as.
tests=$(cargo test --release --features cudnn --no-run --message-format json --lib --test gpu --test reference |
    python3 -c 'import json, sys
for line in sys.stdin:
    message = json.loads(line) if line.startswith("{") else {}
    if message.get("executable") and message["profile"]["test"]:
        print(message["target"]["name"], message["executable"])')

rm -rf "$kit"
mkdir -p "$kit/bin" "$kit/tests"
cp "$target/release/lixelscope" "$kit/bin/"
while read -r name file; do cp "$file" "$kit/bin/test-$name"; done <<<"$tests"
strip "$kit"/bin/*
cp -r tests/golden tests/gpu tests/peers "$kit/tests/"
rm -rf "$kit"/tests/*/__pycache__
du -sh "$kit"
