#!/bin/bash
# PID 1 of the machine that run.py boots: makes hosts as systemd and Docker would, runs the parts and switches it off.
# What is said goes to the second serial line, which run.py reads.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
exec </dev/null >/dev/ttyS1 2>&1

mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t sysfs -o nosuid,nodev,noexec sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts dev /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
chmod 666 /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty /dev/ttyS1
hostname v2
chown 1000:1000 /home/user

# Variables of the tests. Emulation is slow, as a sanitizer is.
export HUTCHTEST_SLOW=1 HUTCHTEST_SHORT=1 HUTCHTEST_REQUIRE_SANDBOX=1 HUTCHTEST_LEAK_DEADLINE_S=40
export HUTCH=/project/build/src/hutch PYTHONDONTWRITEBYTECODE=1
cd /project || exit

groups=/sys/fs/cgroup
service=$groups/system.slice/test.service
user=$groups/user.slice/user-1000.slice
container=$groups/system.slice/docker-1.scope
all="+memory +pids +cpu"

# Makes a group whose parents hand down these controllers.
make_group() {  # folder, controllers
  local folder=$groups part
  IFS=/ read -ra parts <<<"${1#"$groups"/}"
  for part in "${parts[@]}"; do
    echo "$2" >"$folder/cgroup.subtree_control"
    folder+=/$part
    mkdir -p "$folder"
  done
}

# What systemd hands over to a user: the folder and these files of it.
delegate() { chown 1000:1000 "$1" "$1"/cgroup.{procs,threads,subtree_control}; }

suite() { python3 tests/support/leaks.py -- python3 tests/support/suite.py "$@"; }
as_user() { setpriv --reuid 1000 --regid 1000 --clear-groups env HOME=/home/user TMPDIR=/home/user "$@"; }
# A cgroup namespace: the group is the top of all that is seen.
in_container() {
  # shellcheck disable=SC2016  # expanded inside
  unshare --cgroup --mount bash -c 'umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' - "$@"
}
export -f suite

in_group() { (echo "$BASHPID" >"$1/cgroup.procs" && shift && "$@"); }

only=$(sed -n 's/.*hutchtest.only=\([^ ]*\).*/\1/p' /proc/cmdline)

part() {  # name, group, command...
  local name=$1 group=$2 start=$SECONDS status
  shift 2
  if [[ $name != "$only"* ]]; then return; fi
  echo "-- $name"
  in_group "$group" "$@"
  status=$?
  # 77: all were skipped. What is not 1 either comes from around the suite: a leak, a signal.
  case $status in
    0 | 1 | 77) ;;
    *) echo "FAIL $name: status $status"; echo "0 passed, 1 failed, 0 skipped" ;;
  esac
  echo "-- $name: $((SECONDS - start)) s"
}

# Nobody but PID 1 is in the top groups of a systemd host; services are in groups of their own.
make_group $groups/init.scope "$all"
echo 1 >$groups/init.scope/cgroup.procs
make_group $service "$all"

if [[ -e command.sh ]]; then
  only="command"
  part command $service bash command.sh
fi

export HUTCHTEST_V2_HOST=root
part root $service suite tests/v2/test_v2.py
part limits $service suite tests/sandbox/test_limits.py
part pool $service suite tests/sandbox/test_pool.py
if [[ $only == pressure* ]]; then part pressure $service suite tests/v2/test_pressure.py; fi

export HUTCHTEST_V2_HOST=container
make_group $container "$all"
part container $container in_container bash -c "suite tests/v2/test_v2.py"

export HUTCHTEST_V2_HOST=user
make_group $user/user@1000.service/app.slice/run.scope "$all"
delegate $user/user@1000.service
part user $user/user@1000.service/app.slice/run.scope as_user bash -c "suite tests/v2/test_v2.py"

# Older versions of systemd hand a user memory and pids only.
export HUTCHTEST_V2_HOST=partial
rmdir $user/user@1000.service/hutch.slice 2>/dev/null
for folder in app.slice . ..; do echo -cpu >$user/user@1000.service/$folder/cgroup.subtree_control; done
part partial $user/user@1000.service/app.slice/run.scope as_user bash -c "suite tests/v2/test_v2.py"

# A delegated scope of the system's: what runs in it is in its top group.
export HUTCHTEST_V2_HOST=scope
make_group $groups/system.slice/delegated.scope "$all"
delegate $groups/system.slice/delegated.scope
part scope $groups/system.slice/delegated.scope as_user bash -c "suite tests/v2/test_v2.py"

export HUTCHTEST_V2_HOST=none
make_group $user/session-1.scope "+memory +pids"
part none $user/session-1.scope as_user bash -c "suite tests/v2/test_v2.py"

echo "all parts ran"
sync
echo o >/proc/sysrq-trigger
sleep 100
