#include <algorithm>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <utility>

#include "sandbox/sandbox.h"

/// What a sandbox has of its connections.
namespace hutch::sandbox {

using namespace std::chrono_literals;

/// Keeps the sandbox in use. Its members go before the stream, and the use before the sandbox.
class Sandbox::UsedConnection final : public net::ForwardingOwner {
 public:
  UsedConnection(std::shared_ptr<Sandbox> sandbox, std::unique_ptr<net::Duplex> inner,
                 std::unique_ptr<Activity> activity)
      : ForwardingOwner(std::move(inner)), sandbox_(std::move(sandbox)), activity_(std::move(activity)) {}

 private:
  const std::shared_ptr<Sandbox> sandbox_;
  const std::unique_ptr<Activity> activity_;
};

asio::awaitable<std::unique_ptr<net::Duplex>> Sandbox::connect(uint16_t port) {
  const auto self = shared_from_this();
  std::unique_ptr<Activity> activity;
  // Not on the condition: this is the I/O thread.
  while (!(activity = Activity::try_begin(*this))) {
    asio::steady_timer moment(executor(), 2ms);
    co_await moment.async_wait(asio::use_awaitable);
  }
  auto connection = co_await sandbox::connect(executor(), body_.channel, port);
  co_return std::make_unique<UsedConnection>(self, std::move(connection), std::move(activity));
}

void Sandbox::listen(uint16_t port, Listener::Accept accept) {
  auto used = [weak = weak_from_this(), serve = std::move(accept)](std::unique_ptr<net::Duplex> connection) {
    const auto self = weak.lock();
    if (!self) return;
    try {
      // What connects is running, so that nobody holds it still but for a moment: then it is in use anyway.
      serve(std::make_unique<UsedConnection>(self, std::move(connection), Activity::try_begin(*self)));
    } catch (const Error&) {
      // It has ended, or its owner has just paused it: the connection is reset.
    }
  };
  auto listener = std::make_unique<Listener>(executor(), body_.channel, port, std::move(used));
  const std::lock_guard lock(mutex_);
  listeners_[port].swap(listener);
}

std::shared_ptr<net::Egress> Sandbox::egress() const {
  const std::lock_guard lock(mutex_);
  return egress_;
}

void Sandbox::set_egress(std::shared_ptr<net::Egress> egress, const std::string& how) {
  Description about = *described();
  about.isolation["network"] = {true, how};
  describe(std::move(about));
  const std::lock_guard lock(mutex_);
  egress_.swap(egress);
}

void Sandbox::add_asker(const std::shared_ptr<const Asker>& asker) {
  const std::lock_guard lock(mutex_);
  std::erase_if(askers_, [](const auto& one) { return one.expired(); });
  askers_.insert(askers_.begin(), asker);
}

bool Sandbox::ask(const net::Refusal& refusal, const std::function<void(bool allowed)>& answer) {
  std::vector<std::shared_ptr<const Asker>> askers;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& one : askers_)
      if (auto lives = one.lock()) askers.push_back(std::move(lives));
  }
  return std::ranges::any_of(askers, [&](const auto& asker) { return (*asker)(refusal, answer); });
}

}  // namespace hutch::sandbox
