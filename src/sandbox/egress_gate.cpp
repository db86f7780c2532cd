#include "sandbox/egress_gate.h"

#include <fmt/format.h>
#include <unistd.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/post.hpp>
#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "net/egress_proxy.h"
#include "sandbox/sandbox.h"

namespace hutch::sandbox {

using namespace std::chrono_literals;

namespace {

std::map<std::string, std::string> own_environment() {
  std::map<std::string, std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (const size_t equals = text.find('='); equals != std::string_view::npos)
      out.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return out;
}

net::EgressLimits limits_of(const config::Egress& settings) {
  return {.connect_timeout = std::chrono::seconds(settings.connect_timeout_s),
          .max_connections = static_cast<size_t>(settings.max_connections),
          .bytes_per_second = settings.bandwidth.value,
          .max_bytes = settings.max_bytes.value};
}

/// What somebody answers on another thread.
struct PendingAnswer {
  explicit PendingAnswer(const asio::any_io_executor& executor)
      : came(executor, asio::steady_timer::time_point::max()) {}
  bool allowed = false, here = false;
  asio::steady_timer came;
};

asio::awaitable<bool> ask(std::weak_ptr<Sandbox> weak, net::Refusal refusal) {
  const auto executor = co_await asio::this_coro::executor;
  const auto answer = std::make_shared<PendingAnswer>(executor);
  const auto take = [answer, executor](bool allowed) {
    asio::post(executor, [answer, allowed] {
      answer->allowed = allowed;
      answer->here = true;
      answer->came.cancel();
    });
  };
  const auto sandbox = weak.lock();
  if (!sandbox || !sandbox->ask(refusal, take)) co_return false;
  asio::error_code cancelled;
  if (!answer->here) co_await answer->came.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
  co_return answer->allowed;
}

/// The connection that was checked, for who ends its TLS.
asio::awaitable<std::unique_ptr<net::Duplex>> lend(net::Duplex& owned) {
  co_return std::make_unique<net::Forwarding>(owned);
}

}  // namespace

bool callers_may_add(const config::Egress& settings, const std::string& rule) {
  const std::string& scope = settings.callers_may_allow;
  return scope == "all" || (scope == "public" && !net::names_special_addresses(rule, settings.presets));
}

std::map<std::string, std::string> egress_environment() {
  const std::string http = fmt::format("http://127.0.0.1:{}", kEgressPort);
  const std::string socks = fmt::format("socks5h://127.0.0.1:{}", kEgressPort);
  const std::string own = "localhost,127.0.0.1,::1";
  return {{"HTTP_PROXY", http},  {"http_proxy", http}, {"HTTPS_PROXY", http},
          {"https_proxy", http}, {"ALL_PROXY", socks}, {"all_proxy", socks},
          {"NO_PROXY", own},     {"no_proxy", own},    {"NODE_USE_ENV_PROXY", "1"}};
}

EgressGate::EgressGate(asio::io_context& io, const config::Config& config, AuditLog& audit)
    : io_(io),
      home_(config.home),
      settings_(config.egress),
      secret_settings_(config.secrets),
      secrets_(std::make_shared<net::SecretStore>(config.secrets)),
      upstream_(net::UpstreamProxy::from(settings_.upstream_proxy, own_environment())),
      audit_(audit),
      resolver_(io.get_executor()) {
  net::check_presets(settings_.presets);
}

net::RuleSet EgressGate::rules(const Description& about) const {
  std::vector<std::string> all = about.allow;
  for (const auto& [name, _] : about.secrets) {
    const auto found = secret_settings_.find(name);
    if (found == secret_settings_.end()) continue;
    for (const std::string& host : found->second.hosts)
      all.push_back(host.find(':') == std::string::npos ? host + ":443" : host);
  }
  return net::RuleSet(all, settings_.presets);
}

net::SecretExchange& EgressGate::exchange() {
  const std::lock_guard lock(mutex_);
  if (!exchange_) exchange_ = std::make_unique<net::SecretExchange>(home_, settings_.ca_file);
  return *exchange_;
}

std::string EgressGate::trusted_certificate() {
  return secret_settings_.empty() ? "" : exchange().authority().certificate_pem();
}

void EgressGate::open(const std::shared_ptr<Sandbox>& sandbox) {
  auto egress = std::make_shared<net::Egress>(rules(sandbox->about()), limits_of(settings_),
                                              hooks_for(sandbox), upstream_);
  std::string how =
      "its loopback, and the hosts that `allow` names through hutch's proxy; there is no other way out";
  if (upstream_)
    how += fmt::format("; behind the proxy {} names decide, and addresses are its business",
                       upstream_->at().to_string());
  sandbox->set_egress(egress, how);
  sandbox->listen(kEgressPort, [egress](std::unique_ptr<net::Duplex> client) {
    const auto executor = client->executor();
    asio::co_spawn(executor, net::serve_egress(std::move(client), egress), asio::detached);
  });
}

net::EgressHooks EgressGate::hooks_for(const std::shared_ptr<Sandbox>& sandbox) {
  net::EgressHooks hooks;
  // Which of them asks: one whose names resolve slowly must not hold up the others.
  const void* const owner = sandbox.get();
  hooks.resolve = [this, owner, within = limits_of(settings_).connect_timeout](std::string name) {
    return resolver_.resolve(std::move(name), owner, within);
  };
  hooks.ask = [weak = std::weak_ptr(sandbox)](net::Refusal refusal) { return ask(weak, std::move(refusal)); };
  hooks.audit = [this, id = sandbox->id()](const net::EgressEvent& event) { audit_.write(id, event); };
  hooks.callers_may_add = [this](const std::string& rule) { return callers_may_add(settings_, rule); };
  if (const auto placeholders = sandbox->about().secrets; !placeholders.empty()) {
    const auto secrets = std::make_shared<const net::Secrets>(secrets_, placeholders);
    hooks.needs_inspection = [secrets](const net::HostPort& target) {
      return secrets->applies_to(target.host.to_string(), target.port);
    };
    hooks.inspect = [secrets, &exchange = exchange()](net::Duplex& client, net::Duplex& upstream,
                                                      const net::HostPort& target) {
      return exchange.inspect(client, secrets, target.host.to_string(), target.port,
                              [&upstream] { return lend(upstream); });
    };
  }
  return hooks;
}

}  // namespace hutch::sandbox
