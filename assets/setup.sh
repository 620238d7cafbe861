#!/usr/bin/env bash
# Sets a fresh Debian or Ubuntu machine with Rust up, and goes on.
#   bash assets/setup.sh window [ARGS..]  installs what is missing, builds, opens the window
#   bash assets/setup.sh test [ARGS..]    installs what is missing, builds, runs the tests (no display, GPU or camera needed)
#   bash assets/setup.sh packages         installs what is missing
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# To build: a C toolchain, and libclang for the bindings of the camera interface.
packages=(build-essential pkg-config libclang-dev)
# To run: Vulkan with its software driver, the keyboard library of X11 and Wayland windows, ffmpeg for videos.
packages+=(libvulkan1 mesa-vulkan-drivers libgl1-mesa-dri libxkbcommon0 libxkbcommon-x11-0 libx11-xcb1 libxcursor1 libxi6
  libxrandr2 libegl1 libwayland-client0 ffmpeg)
# To test: a display that is not there, a mouse and a keyboard for it, and a way to see what it shows.
test_packages=(xvfb xdotool imagemagick)

install() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  echo "installing: ${missing[*]}" >&2
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "not root and no sudo: install these by hand: ${missing[*]}" >&2; exit 1; }
    as_root=(sudo)
  fi
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

command -v apt-get >/dev/null || { echo "this script knows Debian and Ubuntu; see README.md for other systems" >&2; exit 1; }
command -v cargo >/dev/null || { echo "Rust is not here: install it from rustup.rs, then run this again" >&2; exit 1; }

case ${1:-} in
  window) install "${packages[@]}"; shift; exec cargo run --release --locked -- "$@" ;;
  test)
    install "${packages[@]}" "${test_packages[@]}"
    shift
    # Vulkan's software driver wants a place for its sockets, and a login shell is not always there to make one.
    export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$(mktemp -d)}
    exec cargo test --release --locked "$@"
    ;;
  packages) install "${packages[@]}" ;;
  *) sed -n '2,5p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
