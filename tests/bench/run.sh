#!/usr/bin/env bash
# hutch beside other programs that run code for agents, in one command. Nothing is installed outside this folder:
# what is missing is named and left out. Everything that is started is ended, and nothing stays behind.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

usage() {
  cat <<'END'
usage: tests/bench/run.sh [--quick|--long] [--write-readme] [--only NAME,...] [--json FILE] [-h]

  --quick         small counts, two minutes; --long: sustained for minutes, 500 sandboxes; default: about 11 minutes
  --write-readme  puts the tables between the benchmark markers of README.md
  --only          as hutch bench takes it
  --json FILE     keeps the full result
  -h              this text

$HUTCH names the binary (default build/src/hutch). Docker, crun, runc and runsc are measured as root only. Peers:
apt-get install bubblewrap crun runc runsc docker.io socat nginx ripgrep nodejs npm
END
}

length="" readme="" json="" only=()
while (($#)); do
  case $1 in
    --quick | --long) length=$1 ;;
    --write-readme) readme=README.md ;;
    --only) only=(--only "${2:?--only needs names}"); shift ;;
    --json) json=${2:?--json needs a file}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

hutch=${HUTCH:-build/src/hutch}
if [[ ! -x $hutch ]]; then
  echo "no $hutch: meson setup build --buildtype=release && ninja -C build, or set \$HUTCH" >&2
  exit 1
fi

work=$(mktemp -d) bench="" daemon="" container=""
had_docker_groups=$(find /sys/fs/cgroup -maxdepth 2 -type d -name docker 2>/dev/null)

# -- Docker: a daemon of our own, with a folder and a socket of its own ------------------------------------------

stop_docker() {
  [[ $daemon ]] || return 0
  [[ $container ]] && docker rm -f "$container" >/dev/null 2>&1
  kill "$daemon" 2>/dev/null
  for ((i = 0; i < 100; i++)); do kill -0 "$daemon" 2>/dev/null || break; sleep 0.1; done
  kill -9 "$daemon" 2>/dev/null
  wait "$daemon" 2>/dev/null
  # It never removes its cgroups; another daemon's stay.
  local group
  for group in /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker; do
    [[ ! $had_docker_groups && -d $group ]] && find "$group" -depth -type d -exec rmdir {} +
  done
  daemon=""
}

# Sets docker_missing to why there is none.
start_docker() {
  local dockerd
  dockerd=$(command -v dockerd) || { docker_missing="dockerd is not installed: apt-get install docker.io"; return; }
  command -v docker >/dev/null || { docker_missing="docker is not installed: apt-get install docker.io"; return; }
  ((EUID == 0)) || { docker_missing="a daemon of our own needs root"; return; }
  export DOCKER_HOST=unix://$work/docker/socket DOCKER_CONFIG=$work/docker/config
  mkdir -p "$work/docker"
  "$dockerd" --data-root "$work/docker/data" --exec-root "$work/docker/exec" --pidfile "$work/docker/pid" \
    -H "$DOCKER_HOST" --iptables=false --ip6tables=false --bridge=none >"$work/docker/log" 2>&1 &
  daemon=$!
  for ((i = 0; i < 100; i++)); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
  # The image has nothing but links: programs come from the host, as in the other sandboxes.
  container=$(tar -C "$work/rootfs" -cf - . | docker import - hutch-bench >/dev/null &&
    docker run -d --network none -v /usr:/usr:ro hutch-bench sleep infinity) 2>>"$work/docker/log"
  if [[ ! $container ]]; then
    docker_missing="dockerd does not work here: $(tail -n 1 "$work/docker/log")"
    stop_docker
  fi
}

# shellcheck disable=SC2317  # by trap
cleanup() {
  [[ $bench ]] && kill "$bench" 2>/dev/null && wait "$bench"
  stop_docker
  # A daemon that had to be killed may leave mounts.
  awk -v at="$work/" 'index($2, at) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount -l
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# -- packages from npm, into this folder -------------------------------------------------------------------------

# Sets npm_missing to why there are none.
install_npm() {
  local folder=tests/bench
  command -v npm >/dev/null || { npm_missing="npm is not installed: apt-get install nodejs npm"; return; }
  [[ -f $folder/node_modules/.done && ! $folder/package-lock.json -nt $folder/node_modules/.done ]] && return
  echo "npm ci in $folder" >&2
  if ! (cd $folder && npm ci && touch node_modules/.done) >"$work/npm.log" 2>&1; then
    npm_missing="npm ci in $folder fails: $(grep -m 1 -i error "$work/npm.log")"
  fi
}

docker_missing="" npm_missing=""
mkdir -p "$work/rootfs"/{usr,proc,dev,sys,tmp}
for link in bin sbin lib lib64; do ln -s "usr/$link" "$work/rootfs/$link"; done
install_npm
start_docker
python3 tests/bench/peers.py "$work" "$docker_missing" "$container" "$npm_missing" || exit 1

status=0
# In the background, so that a signal to this script ends it at once: a shell waits for what it runs in front.
"$hutch" bench ${length:+"$length"} "${only[@]}" --peers "$work/peers.json" --json "$work/result.json" &
bench=$!
wait "$bench" || status=$?
bench=""
[[ -f $work/result.json ]] || exit "$status"
[[ $json ]] && cp "$work/result.json" "$json"
echo
python3 tests/bench/table.py "$work/result.json" "tests/bench/run.sh${length:+ $length}" ${readme:+"$readme"}
exit "$status"
