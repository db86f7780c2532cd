#include "mcp/request_states.h"

#include "base/sha256.h"
#include "base/sys.h"

namespace hutch::mcp {

namespace {

constexpr size_t kMacDigits = 64;
constexpr size_t kKeyBytes = 32;

/// Keys are sorted in a json object, so equal arguments give equal text.
std::string digest_of(const json& arguments) {
  return sha256_hex(arguments.is_null() ? "{}" : arguments.dump());
}

ProtocolError refused(const char* why) {
  return {rpc::kInvalidParams, std::string("Invalid params: requestState ") + why};
}

}  // namespace

RequestStates::RequestStates(std::chrono::milliseconds lifetime, std::function<Clock::time_point()> now)
    : key_(sys::random_hex(kKeyBytes)), lifetime_(lifetime), now_(std::move(now)) {}

std::string RequestStates::seal(const std::string& tool, const json& arguments,
                                const InputRequired& required) const {
  const json payload = {{"id", sys::random_hex(16)},
                        {"expires", now_ms() + lifetime_.count()},
                        {"tool", tool},
                        {"arguments", digest_of(arguments)},
                        {"values", values_of(required.question)},
                        {"subject", required.subject},
                        {"state", required.state}};
  const std::string text = payload.dump(-1, ' ', false, json::error_handler_t::replace);
  return mac(text) + text;
}

std::variant<Resumed, ProtocolError> RequestStates::unseal(const std::string& tool, const json& arguments,
                                                           const std::string& state, const json& responses) {
  const std::string_view text = std::string_view(state).substr(std::min(state.size(), kMacDigits));
  if (!same_secret(std::string_view(state).substr(0, kMacDigits), mac(text)))
    return refused("was not given out by this server process");
  const json payload = json::parse(text);
  if (payload["tool"] != tool || payload["arguments"] != digest_of(arguments))
    return refused("belongs to another call: the tool and its arguments must stay the same");
  const auto expires = payload["expires"].get<int64_t>();
  if (now_ms() >= expires) return refused("has expired");
  if (!use_up(payload["id"], expires)) return refused("was used already");
  const auto response = responses.find(kQuestionKey);
  return Resumed{payload["subject"], payload["state"],
                 decision_of(response == responses.end() ? json() : *response, payload["values"])};
}

std::string RequestStates::mac(std::string_view payload) const {
  return hmac_sha256_hex(key_, payload);
}

int64_t RequestStates::now_ms() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(now_().time_since_epoch()).count();
}

bool RequestStates::use_up(const std::string& id, int64_t expires_ms) {
  const std::lock_guard lock(mutex_);
  std::erase_if(used_, [now = now_ms()](const auto& item) { return now >= item.second; });
  return used_.emplace(id, expires_ms).second;
}

}  // namespace hutch::mcp
