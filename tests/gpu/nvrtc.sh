#!/usr/bin/env bash
# Fetches NVIDIA's run-time compiler and says where it is: nvrtc.sh FOLDER. With its answer in LIXELSCOPE_NVRTC, the tests
# compile every kernel for every GPU from sm_70 up, where there is neither a GPU nor a CUDA toolkit: 90 MB, once. Of
# CUDA 12: later ones no longer know sm_70.
set -euo pipefail
folder=$(mkdir -p "${1:?where to}" && cd "$1" && pwd -P)
find_it() { find "$folder" -name 'libnvrtc.so.12' | grep .; }
find_it && exit
command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 ||
    { echo "no python3 with pip is here to fetch NVRTC with" >&2; exit 1; }
timeout 300 python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
    --retries 1 --timeout 30 --target "$folder" 'nvidia-cuda-nvrtc-cu12>=12.8' >&2
find_it
