#!/bin/bash
# PID 1 of the machine that run.py boots: makes a host as systemd would, runs the parts and switches it off.
# What is said goes to the second serial line, which run.py reads.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
exec </dev/null >/dev/ttyS1 2>&1

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts dev /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
hostname v2
ip link set lo up 2>/dev/null
chown 1000:1000 /home/user
groups=/sys/fs/cgroup

# Nobody but PID 1 is in the root group of a systemd host; services are in groups of their own.
mkdir -p $groups/init.scope $groups/system.slice/test.service
echo "+memory +pids +cpu" >$groups/cgroup.subtree_control
echo 1 >$groups/init.scope/cgroup.procs

# Variables of the tests. Emulation is slow, as a sanitizer is.
export HUTCHTEST_SLOW=1 HUTCHTEST_SHORT=1 HUTCHTEST_REQUIRE_SANDBOX=1 HUTCHTEST_LEAK_DEADLINE_S=40
export HUTCH=/project/build/src/hutch PYTHONDONTWRITEBYTECODE=1
cd /project || exit

only=$(sed -n 's/.*hutchtest.only=\([^ ]*\).*/\1/p' /proc/cmdline)
wanted() { [[ -z $only || $1 == "$only"* ]]; }

in_group() {  # folder, command...
  local folder=$1
  shift
  (echo $BASHPID >"$folder/cgroup.procs" && exec "$@")
}

part() {  # name, group, command...
  local name=$1 group=$2 start=$SECONDS
  shift 2
  wanted "$name" || return 0
  echo "-- $name"
  in_group "$group" timeout 600 "$@"
  local status=$?
  # 77: all were skipped. Others that are not 1 come from what watches the suite: a leak, a time limit.
  case $status in
    0 | 1 | 77) ;;
    *) echo "FAIL $name: status $status"; echo "0 passed, 1 failed, 0 skipped" ;;
  esac
  echo "-- $name: $((SECONDS - start)) s"
}

suite() { echo python3 tests/support/leaks.py -- python3 tests/support/suite.py "$@"; }

# shellcheck disable=SC2046  # the words of a command
part root $groups/system.slice/test.service $(suite tests/v2/test_v2.py)
# shellcheck disable=SC2046
part limits $groups/system.slice/test.service $(suite tests/sandbox/test_limits.py)
# shellcheck disable=SC2046
part pool $groups/system.slice/test.service $(suite tests/sandbox/test_pool.py)

echo "all parts ran"
sync
echo o >/proc/sysrq-trigger
sleep 100
