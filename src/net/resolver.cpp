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

constexpr size_t kMaxWaiting = 64;  // of one owner

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

  struct Job {
    std::string name;
    const void* owner;
    std::weak_ptr<Lookup> lookup;  // gone: nobody waits any more
  };

  std::mutex mutex;
  asio::any_io_executor io;  // empty once the Resolver is gone
  size_t max_threads, max_per_owner, threads = 0;
  std::list<Job> waiting;
  std::map<const void*, size_t> running;  // of each owner

  /// The oldest job whose owner has not its share of threads already.
  std::list<Job>::iterator next() {
    return std::ranges::find_if(waiting, [this](const Job& job) {
      const auto it = running.find(job.owner);
      return it == running.end() || it->second < max_per_owner;
    });
  }
  size_t waiting_of(const void* owner) const {
    return static_cast<size_t>(std::ranges::count(waiting, owner, &Job::owner));
  }
  static void work(std::shared_ptr<State> state);
};

/// Takes jobs as long as there are any: an idle resolver has no threads.
void Resolver::State::work(std::shared_ptr<State> state) {
  std::unique_lock lock(state->mutex);
  for (auto it = state->next(); state->io && it != state->waiting.end(); it = state->next()) {
    const Job job = std::move(*it);
    state->waiting.erase(it);
    if (job.lookup.expired()) continue;
    ++state->running[job.owner];
    lock.unlock();
    int error = 0;
    std::vector<Address> addresses = look_up(job.name, error);
    lock.lock();
    if (--state->running[job.owner] == 0) state->running.erase(job.owner);
    if (!state->io) break;
    asio::post(state->io, [weak = job.lookup, addresses = std::move(addresses), error]() mutable {
      const auto lookup = weak.lock();
      if (!lookup) return;
      lookup->addresses = std::move(addresses);
      lookup->error = error;
      lookup->done = true;
      lookup->finished.cancel();
    });
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
  state_->waiting.clear();
}

asio::awaitable<std::vector<Address>> Resolver::resolve(std::string name, const void* owner,
                                                        std::chrono::milliseconds within) {
  const auto lookup = std::make_shared<State::Lookup>(io_);
  lookup->finished.expires_after(within);
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->waiting_of(owner) >= kMaxWaiting)
      throw Error(Errc::limit_exceeded, fmt::format("more than {} names wait to be resolved", kMaxWaiting));
    state_->waiting.push_back({name, owner, lookup});
    if (state_->threads < state_->max_threads && state_->next() != state_->waiting.end()) {
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
