#!/usr/bin/env bash
# From a fresh Debian 12 machine to code running in a sandbox, in one command: installs what is missing, builds
# hutch, then lets a real MCP client do the main job. Run again, it takes seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }
step() { printf '\033[1m%s\033[0m\n' "$*"; }
# Runs quietly; shows the output only when it fails.
quiet() { local log; log=$(mktemp); "$@" >"$log" 2>&1 || { cat "$log"; rm -f "$log"; echo "failed: $*" >&2; exit 1; }; rm -f "$log"; }

wanted=(meson ninja-build pkg-config nlohmann-json3-dev libfmt-dev libyaml-cpp-dev doctest-dev libdtl-dev
  libasio-dev libssl-dev libseccomp-dev libvterm-dev crun)
# What is wanted and not among what is installed; compilers and Node by command, since they often come by other means.
mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}" | sort) \
  <(dpkg-query -W -f='${Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/.* installed //p' | sort -u))
command -v g++ >/dev/null || missing+=(g++)
command -v python3 >/dev/null || missing+=(python3)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if ((${#missing[@]})); then
  step "Installing ${missing[*]}"
  quiet as_root env DEBIAN_FRONTEND=noninteractive apt-get update
  quiet as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
fi

# An existing build folder keeps its options: tests and quick start share it.
if [[ ! -f build/build.ninja ]]; then
  step "Building hutch (once, a few minutes)"
  quiet meson setup build --buildtype=release
fi
quiet ninja -C build src/hutch

if [[ ! -f examples/node_modules/.done || examples/package-lock.json -nt examples/node_modules/.done ]]; then
  step "Fetching the official MCP client SDK"
  (cd examples && quiet npm ci && touch node_modules/.done)
fi

exec node examples/quickstart.mjs "$PWD/build/src/hutch"
