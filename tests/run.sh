#!/usr/bin/env bash
# Installs what the tests need, builds, runs every suite. The last line is the sum.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

usage() {
  cat <<'END'
usage: tests/run.sh [--long] [--only NAME]... [-h]

  --long       also builds and tests with ThreadSanitizer, runs all suites at full length, and the suite v2
  --only NAME  only the suites whose name begins with NAME; may be repeated
  -h           this text

suites: unit (all of Meson's: unit, protocol, agent, fuzz), sandbox, security, clients, each plain; support;
        asan-unit, asan-sandbox, asan-security: short forms under address and undefined sanitizers;
        style-layers, style-conventions, style-format, schema (recorded messages against the official
        JSON schemas; skipped without $MCP_SCHEMA_DIR), tsan-unit and tsan-sandbox with --long; v2, a machine with cgroup v2
        in QEMU, with --long or --only v2; v2-pressure, memory pressure in a small one, where QEMU is installed
END
}

long=0 only=()
while (($#)); do
  case $1 in
    --long) long=1 ;;
    --only) only+=("${2:?--only needs a name}"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

passed=0 failed=0 skipped=0 broken=()
work=$(mktemp -d)
declare -A building=()  # processes that build, by folder
trap 'for pid in "${building[@]}"; do pkill -P "$pid"; done; rm -rf "$work"' EXIT
say() { printf '\n== %s\n' "$*"; }

wanted() {  # is this suite asked for?
  ((${#only[@]} == 0)) && return 0
  local name
  for name in "${only[@]}"; do [[ $1 == "$name"* ]] && return 0; done
  return 1
}

v2_wanted() { if ((${#only[@]})); then wanted v2; else ((long)); fi; }

count() { ((passed += $1, failed += $2, skipped += $3)); }

# -- what must be installed ------------------------------------------------------------------------------------

as_root() { if ((EUID == 0)); then "$@"; else sudo "$@"; fi; }

missing_packages() {
  local -a wanted=(meson ninja-build pkg-config nlohmann-json3-dev libfmt-dev libyaml-cpp-dev doctest-dev libdtl-dev
    libasio-dev libssl-dev libseccomp-dev libvterm-dev crun runc e2fsprogs uidmap procps zstd
    passt iproute2  # the network `full`, and the networks that tests make
    xfsprogs btrfs-progs  # file systems that share blocks
    skopeo umoci docker-registry busybox-static  # images, and a registry to pull them from
    python3-matplotlib vim-tiny less)  # what sandboxes draw and drive in the tests
  if { v2_wanted || [[ ${CI:-} ]]; } && wanted v2-pressure && [[ $(uname -m) == x86_64 ]]; then wanted+=(qemu-system-x86); fi
  # Large, and Debian's name for it: elsewhere its tests are left out when no Chromium is installed.
  if [[ ${CI:-} ]] && wanted sandbox && grep -qx ID=debian /etc/os-release; then wanted+=(chromium-headless-shell); fi
  # Names of what is wanted and not among what is installed.
  comm -23 <(printf '%s\n' "${wanted[@]}" | sort -u) \
    <(dpkg-query -W -f='${Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/.* installed //p' | sort -u)
  # By command: these are often installed by other means than Debian's package.
  command -v g++ >/dev/null || echo g++
  command -v python3 >/dev/null || echo python3
  command -v git >/dev/null || echo git
  command -v node >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
}

install_missing() {
  local packages
  mapfile -t packages < <(missing_packages)
  ((${#packages[@]} == 0)) && return 0
  say "installing ${packages[*]}"
  if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"; } \
    >"$work/apt.log" 2>&1; then
    cat "$work/apt.log"
    echo "cannot install: ${packages[*]}" >&2
    exit 1
  fi
}

# Packages from npm, again only when the lock file has changed since.
install_clients() {
  local folder=tests/clients
  if [[ ! -f $folder/node_modules/.done || $folder/package-lock.json -nt $folder/node_modules/.done ]]; then
    say "npm ci in $folder"
    (cd $folder && npm ci >"$work/npm.log" 2>&1 && touch node_modules/.done) || { cat "$work/npm.log"; return 1; }
  fi
  # The Inspector needs Node 22, Debian 12 has 18: the package node-linux-* brings one.
  node=$(compgen -G "$PWD/$folder/node_modules/node-linux-*/bin/node" | head -n 1)
  if [[ -z $node ]]; then
    node=$(command -v node)
    echo "no Node from npm for this machine: using $node $("$node" --version)"
  fi
  local major
  major=$("$node" -p 'process.versions.node.split(".")[0]')
  if ((major < 18)); then echo "Node $major is too old, 18 or newer is needed: npm i node"; return 1; fi
}

# -- building --------------------------------------------------------------------------------------------------

build() {  # folder, options of meson setup
  local folder=$1 start=$SECONDS
  shift
  if [[ ! -f $folder/build.ninja ]]; then
    say "setting up $folder"
    # ccache is used by Meson itself when it is installed.
    meson setup "$folder" "$@" >"$work/$folder.log" 2>&1 || { cat "$work/$folder.log"; return 1; }
  fi
  ninja -C "$folder" >"$work/$folder.log" 2>&1 || { tail -n 60 "$work/$folder.log"; return 1; }
  echo "built $folder in $((SECONDS - start)) s"
}

# The suites wait more than they compute: what is left of the processors builds what comes after them.
begin_build() {  # folder, options of meson setup
  { chrt --idle --pid 0 $BASHPID; build "$@"; } >"$work/$1.out" 2>&1 &
  building[$1]=$!
}

must_build() {
  if [[ ${building[$1]-} ]]; then
    wait "${building[$1]}"
    local status=$?
    cat "$work/$1.out"
    ((status == 0)) && return
  else
    build "$@" && return
  fi
  echo "FAIL cannot build $1"
  count 0 1 0
  broken+=("build $1")
  finish
}

# shellcheck disable=SC2317  # the functions below are called by name
# -- suites ----------------------------------------------------------------------------------------------------

# A suite that reports no count is one test: its exit status.
suite() {  # name, command...
  local name=$1 start=$SECONDS status
  local -a counts
  shift
  wanted "$name" || return 0
  say "$name"
  "$@" 2>&1 | tee "$work/out"
  status=${PIPESTATUS[0]}
  read -r -a counts < <(python3 - "$status" "$work/out" <<'END'
import re, sys
status, text = int(sys.argv[1]), open(sys.argv[2], errors="replace").read()
number = lambda pattern: sum(map(int, re.findall(pattern, text, re.M)))
lines = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", text, re.M)
if lines:
    p, f, s = map(int, lines[-1])
elif re.search(r"^Ok:\s", text, re.M):      # meson test
    p, f, s = number(r"^Ok:\s+(\d+)") + number(r"^Expected Fail:\s+(\d+)"), \
        number(r"^Fail:\s+(\d+)") + number(r"^Timeout:\s+(\d+)") + number(r"^Unexpected Pass:\s+(\d+)"), number(r"^Skipped:\s+(\d+)")
elif re.search(r"^# pass \d", text, re.M):  # node --test
    p, f, s = number(r"^# pass (\d+)"), number(r"^# fail (\d+)") + number(r"^# cancelled (\d+)"), number(r"^# skipped (\d+)")
else:
    p, f, s = (1, 0, 0) if status == 0 else (0, 0, 1) if status == 77 else (0, 1, 0)
if status not in (0, 77) and not f:         # died on the way, or left something behind
    f = 1
print(p, f, s)
END
  )
  count "${counts[@]}"
  set -- "${counts[@]}"
  echo "-- $name: $1 passed, $2 failed, $3 skipped, $((SECONDS - start)) s"
  if (($2)); then broken+=("$name"); fi
}

leak_checked() { python3 tests/support/leaks.py -- "$@"; }
python_suite() {  # build folder, files and options...
  local folder=$1
  shift
  HUTCH=$PWD/$folder/src/hutch leak_checked python3 tests/support/suite.py "$@"
}
sanitized() {
  ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 HUTCHTEST_SLOW=1 HUTCHTEST_SHORT=1 "$@"
}
node_suite() {
  HUTCH=$PWD/build/src/hutch leak_checked "$node" --test --test-reporter=tap "$@" | grep -vE '^ *(---|\.\.\.|duration_ms|type:)'
}

schema_suite() {
  local folder=${MCP_SCHEMA_DIR:-}
  if [[ ! -d $folder ]]; then
    echo "SKIP no official JSON schemas: set MCP_SCHEMA_DIR to a folder with 2025-11-25.json and so on"
    return 77
  fi
  "$node" tests/clients/schema_check.mjs "$folder" "$HUTCHTEST_RECORD_DIR"/*.jsonl
}

finish() {
  if ((${#broken[@]})); then
    printf '\nfailed:'
    printf ' %s' "${broken[@]}"
    echo
  fi
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0 && passed > 0))
  exit
}

any_wanted() { local name; for name in "$@"; do wanted "$name" && return 0; done; return 1; }

asan=(build-asan -Db_sanitize=address,undefined -Doptimization=1 -Ddebug=false -Dcpp_args=-g1)
asan_wanted() { any_wanted asan-unit asan-sandbox asan-security; }

install_missing
if any_wanted unit support sandbox security clients schema v2-pressure || v2_wanted; then must_build build; fi
if asan_wanted; then begin_build "${asan[@]}"; fi
# Variables of the tests have a prefix of their own: hutch refuses a HUTCH_ variable that it does not know.
[[ ${CI:-} ]] && export HUTCHTEST_REQUIRE_SANDBOX=1
export HUTCHTEST_RECORD_DIR=$work/recordings

suite style-layers python3 tests/style/layers.py
suite style-conventions python3 tests/style/conventions.py
suite style-format tests/style/format.sh

if ((long)); then export HUTCHTEST_LONG=1; else export HUTCHTEST_SHORT=1; fi
suite unit leak_checked meson test -C build --no-rebuild --print-errorlogs
# Without recordings: its servers are made up.
suite support env -u HUTCHTEST_RECORD_DIR python3 tests/support/leaks.py -- python3 tests/support/suite.py tests/support/test_support.py
suite sandbox python_suite build tests/sandbox/test_*.py
suite security python_suite build tests/security/test_*.py

if any_wanted clients schema; then
  if install_clients; then
    suite clients node_suite tests/clients/*.test.mjs
    # All that was recorded on the way, by whatever client.
    if ((${#only[@]} == 0)) || wanted schema; then suite schema schema_suite; fi
  else
    echo "FAIL the real clients cannot be installed"
    count 0 1 0
    broken+=(clients)
  fi
fi

if v2_wanted; then suite v2 python3 tests/v2/run.py --build build; fi
suite v2-pressure python3 tests/v2/run.py --build build --only pressure --memory 512

unset HUTCHTEST_RECORD_DIR
if asan_wanted; then
  must_build "${asan[@]}"
  suite asan-unit sanitized leak_checked meson test -C build-asan --no-rebuild --print-errorlogs -t 4
  suite asan-sandbox sanitized python_suite build-asan tests/sandbox/test_*.py
  suite asan-security sanitized python_suite build-asan tests/security/test_*.py
fi
if ((long)); then
  must_build build-tsan -Db_sanitize=thread -Doptimization=1 -Ddebug=false -Dcpp_args=-g1
  suite tsan-unit sanitized leak_checked meson test -C build-tsan --no-rebuild --print-errorlogs -t 4
  suite tsan-sandbox sanitized python_suite build-tsan tests/sandbox/test_*.py
fi
finish
