#include "net/resolver.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <algorithm>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace hutch::net {

namespace {

constexpr size_t kMaxWaiting = 64;  // names of one owner

std::vector<Address> look_up(const std::string& name, int& error) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_ADDRCONFIG;
  addrinfo* first = nullptr;
  error = ::getaddrinfo(name.c_str(), nullptr, &wanted, &first);
  std::vector<Address> out;
  if (error != 0) return out;
  for (const addrinfo* at = first; at != nullptr; at = at->ai_next) {
    if (at->ai_family == AF_INET) {
      const auto& v4 = reinterpret_cast<const sockaddr_in*>(at->ai_addr)->sin_addr;
      out.emplace_back(asio::ip::address_v4(ntohl(v4.s_addr)));
    } else if (at->ai_family == AF_INET6) {
      const auto* v6 = reinterpret_cast<const sockaddr_in6*>(at->ai_addr);
      asio::ip::address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &v6->sin6_addr, bytes.size());
      out.emplace_back(asio::ip::address_v6(bytes, v6->sin6_scope_id));
    }
  }
  ::freeaddrinfo(first);
  return out;
}

}  // namespace

/// Outlives the Resolver as long as a thread is inside getaddrinfo: nobody waits for those.
struct Resolver::State {
  struct Lookup {
    explicit Lookup(const asio::any_io_executor& io) : finished(io) {}
    asio::steady_timer finished;
    bool done = false;
    std::vector<Address> addresses;
    int error = 0;  // of getaddrinfo
  };

  /// One name, for all connections of the owner that want it meanwhile.
  struct Job {
    std::string name;
    const void* owner;
    std::vector<std::weak_ptr<Lookup>> lookups;  // those gone do not wait any more
    bool running = false;
  };

  std::mutex mutex;
  asio::any_io_executor io;  // empty once the Resolver is gone
  size_t max_threads, max_per_owner, threads = 0;
  std::list<Job> jobs;
  std::map<const void*, size_t> running;  // of each owner

  /// The oldest job that waits and whose owner has not its share of threads already.
  std::list<Job>::iterator next() {
    return std::ranges::find_if(jobs, [this](const Job& job) {
      const auto it = running.find(job.owner);
      return !job.running && (it == running.end() || it->second < max_per_owner);
    });
  }
  size_t waiting_of(const void* owner) const {
    return static_cast<size_t>(
        std::ranges::count_if(jobs, [owner](const Job& job) { return job.owner == owner && !job.running; }));
  }
  void add(const std::string& name, const void* owner, const std::shared_ptr<Lookup>& lookup);
  void finish(std::list<Job>::iterator job, std::vector<Address> addresses, int error);
  static void work(std::shared_ptr<State> state);
};

void Resolver::State::add(const std::string& name, const void* owner, const std::shared_ptr<Lookup>& lookup) {
  const auto known =
      std::ranges::find_if(jobs, [&](const Job& job) { return job.owner == owner && job.name == name; });
  if (known != jobs.end()) {
    std::erase_if(known->lookups, [](const auto& one) { return one.expired(); });
    known->lookups.emplace_back(lookup);
    return;
  }
  if (waiting_of(owner) >= kMaxWaiting)
    throw Error(Errc::limit_exceeded, fmt::format("more than {} names wait to be resolved", kMaxWaiting));
  jobs.push_back({name, owner, {lookup}});
}

void Resolver::State::finish(std::list<Job>::iterator job, std::vector<Address> addresses, int error) {
  asio::post(io, [lookups = std::move(job->lookups), addresses = std::move(addresses), error] {
    for (const auto& weak : lookups) {
      const auto lookup = weak.lock();
      if (!lookup) continue;
      lookup->addresses = addresses;
      lookup->error = error;
      lookup->done = true;
      lookup->finished.cancel();
    }
  });
  if (--running[job->owner] == 0) running.erase(job->owner);
  jobs.erase(job);
}

/// Takes jobs as long as there are any: an idle resolver has no threads.
void Resolver::State::work(std::shared_ptr<State> state) {
  std::unique_lock lock(state->mutex);
  for (auto job = state->next(); state->io && job != state->jobs.end(); job = state->next()) {
    if (std::ranges::all_of(job->lookups, [](const auto& lookup) { return lookup.expired(); })) {
      state->jobs.erase(job);
      continue;
    }
    job->running = true;
    ++state->running[job->owner];
    const std::string name = job->name;
    lock.unlock();
    int error = 0;
    std::vector<Address> addresses = look_up(name, error);
    lock.lock();
    if (!state->io) break;
    state->finish(job, std::move(addresses), error);
  }
  --state->threads;
}

Resolver::Resolver(asio::any_io_executor io, size_t threads, size_t threads_per_owner)
    : io_(std::move(io)), state_(std::make_shared<State>()) {
  state_->io = io_;
  state_->max_threads = threads;
  state_->max_per_owner = threads_per_owner;
}

Resolver::~Resolver() {
  const std::lock_guard lock(state_->mutex);
  state_->io = {};
}

asio::awaitable<std::vector<Address>> Resolver::resolve(std::string name, const void* owner,
                                                        std::chrono::milliseconds within) {
  const auto lookup = std::make_shared<State::Lookup>(io_);
  lookup->finished.expires_after(within);
  {
    const std::lock_guard lock(state_->mutex);
    state_->add(name, owner, lookup);
    if (state_->threads < state_->max_threads && state_->next() != state_->jobs.end()) {
      std::thread(&State::work, state_).detach();  // which waits for the lock
      ++state_->threads;
    }
  }
  asio::error_code cancelled;
  co_await lookup->finished.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  if (!lookup->done && cancelled) throw Error(Errc::unavailable, "the connection was given up");
  if (!lookup->done)
    throw Error(Errc::timeout,
                fmt::format("the name {} was not resolved within {} ms", name, within.count()));
  if (lookup->error != 0)
    throw Error(Errc::unavailable,
                fmt::format("the name {} does not resolve: {}", name, ::gai_strerror(lookup->error)));
  co_return std::move(lookup->addresses);
}

}  // namespace hutch::net
