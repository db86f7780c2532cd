#include <fmt/format.h>

#include <map>
#include <memory>
#include <queue>

#include "base/error.h"
#include "bench/machine.h"
#include "bench/made.h"
#include "bench/scenarios.h"

namespace hutch::bench {

namespace {

constexpr size_t kBatch = 32;  // sandboxes that exist at once, below the default limit
constexpr double kRefillMs = 500;

/// How often `operation`, which creates, found a sandbox ready goes into its figures.
Json with_counts(Json figures, const Made& made) {
  figures.update(made.counts());
  return figures;
}

Json measure_create(const ServerCommand& command, const Plan& plan, double refill_ms) {
  McpClient client(command);
  Made first(client), spaced(client), burst(client);
  (void)first.create_one();
  first.destroy_all();
  Operation operation;
  operation.run = [&] { return spaced.create_one(); };
  operation.finish = [&] { spaced.destroy_all(); };
  Json out;
  out["spaced"] = with_counts(measure_spaced(operation, plan), spaced);
  operation.prepare = [&](size_t) { sleep_ms(refill_ms); };
  operation.run = [&] { return burst.create_one(); };
  operation.finish = [&] { burst.destroy_all(); };
  operation.batch = kBatch;
  out["burst"] = with_counts(measure_burst(operation, plan), burst);
  return out;
}

Json measure_create_warm(const Context& context) {
  Plan plan = context.plan;
  plan.spaced_n *= 3;  // the figure that matters most: enough for a p99
  return measure_create(context.server(), plan, kRefillMs);
}
Json measure_create_cold(const Context& context) {
  return measure_create(context.cold_server(), context.plan, 0);
}

Json measure_destroy(const Context& context) {
  McpClient client(context.server());
  Made made(client);
  Operation operation;
  operation.prepare = [&](size_t n) {
    for (size_t i = 0; i < n; ++i) (void)made.create_one();
  };
  operation.run = [&] { return made.destroy_one(); };
  operation.finish = [&] { client.check(); };
  operation.batch = kBatch;
  return measure(operation, context.plan);
}

Json measure_cycles(const Context& context) {
  Json out = Json::array();
  for (const size_t clients : {1, 2, 4, 8}) {
    std::vector<std::unique_ptr<McpClient>> servers;
    const auto cycle = [&](size_t thread) {
      McpClient& client = *servers[thread];
      const std::string id = sandbox_id_of(client.call(create_request()));
      (void)client.call(exec_true_request(id), "exit 0");
      (void)client.call(destroy_request(id));
    };
    for (size_t i = 0; i < clients; ++i) {
      servers.push_back(std::make_unique<McpClient>(context.server()));
      cycle(i);
    }
    out.push_back(sustain(clients, context.plan.sustained_s, cycle));
  }
  return {{"cycles", out}};
}

/// One caller with several calls under way: creates at a steady rate, and each sandbox is destroyed a while
/// later.
class SteadyLoad {
 public:
  SteadyLoad(McpClient& client, double seconds)
      : client_(client), creates_left_(static_cast<int>(seconds * kRate)) {}

  Json run() {
    next_create_ = Clock::now();
    while (creates_left_ > 0 || !creates_.empty() || !destroys_.empty() || !live_.empty()) {
      check_interrupted();
      send_what_is_due();
      if (const auto answer = client_.receive(next_event())) take(*answer);
    }
    Json out = latency_.summary();
    out["warm"] = warm_;
    out["hit_ratio"] = static_cast<double>(warm_) / static_cast<double>(std::max<size_t>(latency_.size(), 1));
    return out;
  }

 private:
  static constexpr double kRate = 20;  // creates per second
  static constexpr auto kLife = std::chrono::milliseconds(100);
  static constexpr auto kSilence = std::chrono::seconds(60);

  struct Live {
    Clock::time_point end;
    std::string id;
  };

  void send_what_is_due() {
    const auto now = Clock::now();
    if (creates_left_ > 0 && now >= next_create_) {
      const auto start = Clock::now();
      creates_[client_.send(create_)] = start;
      --creates_left_;
      next_create_ += std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(1 / kRate));
    }
    for (; !live_.empty() && now >= live_.front().end; live_.pop())
      destroys_[client_.send(destroy_request(live_.front().id))] = now;
  }

  Clock::time_point next_event() const {
    auto next = Clock::now() + kSilence;
    if (creates_left_ > 0) next = std::min(next, next_create_);
    if (!live_.empty()) next = std::min(next, live_.front().end);
    for (const auto& [id, start] : creates_) next = std::min(next, start + kSilence);
    return next;
  }

  void take(const McpClient::Answer& answer) {
    const Json result = McpClient::result_of(answer.message);
    const int64_t id = answer.message.at("id");
    if (destroys_.erase(id) != 0) return;
    const auto created = creates_.find(id);
    if (created == creates_.end()) throw Error(Errc::internal, fmt::format("an answer to no call: {}", id));
    latency_.add(std::chrono::duration<double, std::milli>(answer.at - created->second).count());
    creates_.erase(created);
    warm_ += was_warm(result);
    live_.push({answer.at + kLife, sandbox_id_of(result)});
  }

  McpClient& client_;
  const Request create_ = create_request();
  int creates_left_;
  Clock::time_point next_create_;
  std::map<int64_t, Clock::time_point> creates_, destroys_;  // under way, by id
  std::queue<Live> live_;
  Samples latency_;
  size_t warm_ = 0;
};

Json measure_hit_ratio(const Context& context) {
  McpClient client(context.server());
  Made first(client);
  (void)first.create_one();
  first.destroy_all();
  sleep_ms(kRefillMs);
  return {{"steady", SteadyLoad(client, context.plan.hit_ratio_s).run()}};
}

}  // namespace

const std::vector<Scenario>& life_scenarios() {
  static const std::vector<Scenario> list = {
      {"create_warm", "sandbox_create, as a host finds it", measure_create_warm},
      {"create_cold", "sandbox_create, nothing prepared", measure_create_cold},
      {"destroy", "sandbox_destroy", measure_destroy},
      {"cycles", "create, exec true, destroy: again and again", measure_cycles},
      {"hit_ratio", "20 creates a second", measure_hit_ratio},
  };
  return list;
}

}  // namespace hutch::bench
