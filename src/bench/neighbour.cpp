#include "bench/machine.h"
#include "bench/made.h"
#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

constexpr double kBiteMs = 1000;  // until the hogs hold what they can get

/// Each takes all that its sandbox may have of one thing, and again when it was ended for that.
constexpr const char* kHogs[] = {
    // processors
    "for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait",
    // processes, but not all: the others need some
    "while :; do for i in $(seq 100); do sleep 0.1 & done; wait; done 2>/dev/null",
    // memory, by malloc and by files that are memory
    "while :; do python3 -c 'x = [bytearray(1 << 20) for _ in range(4096)]'; done 2>/dev/null",
    "while :; do head -c 1G /dev/zero > /dev/shm/x; rm -f /dev/shm/x; done 2>/dev/null",
    // the disk and its inodes, bounded
    "while :; do head -c 64M /dev/zero > /tmp/x; rm -f /tmp/x; done",
    "mkdir /tmp/many; cd /tmp/many; while :; do for i in $(seq 2000); do : > $i; done; rm -f *; done",
    // output
    "yes",
};

/// `true` in one sandbox, first alone on the machine, then beside one that takes all it can get.
Json measure_neighbour(const Context& context) {
  McpClient client(context.server());
  const std::string mine = sandbox_id_of(client.call(create_request()));
  const std::string bad = sandbox_id_of(client.call(create_request({{"memory", "256m"}})));
  const Request exec_mine = exec_true_request(mine);
  Operation operation;
  operation.run = [&] { return client.exchange(exec_mine); };
  operation.finish = [&] { client.check("exit 0"); };
  const Json quiet = measure(operation, context.plan);
  for (const char* hog : kHogs)
    (void)client.call(
        Request::tool("sandbox_exec", {{"sandbox_id", bad}, {"command", hog}, {"background", true}}));
  sleep_ms(kBiteMs);
  Json out = measure(operation, context.plan);
  out["quiet"] = quiet;
  return out;
}

}  // namespace

const std::vector<Scenario>& neighbour_scenarios() {
  static const std::vector<Scenario> list = {
      {"neighbour", "sandbox_exec of argv [true] beside a sandbox that takes all it can get",
       measure_neighbour},
  };
  return list;
}

}  // namespace hutch::bench
