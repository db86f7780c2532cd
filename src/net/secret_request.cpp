#include "net/secret_request.h"

#include <string.h>

#include <algorithm>

namespace hutch::net {

namespace {

constexpr std::string_view kBasic = "basic ";

bool is_basic(std::string_view authorization) {
  return authorization.size() > kBasic.size() && same_word(authorization.substr(0, kBasic.size()), kBasic);
}

/// Gives what stands in each place of the secret's form to `change` and puts back what that makes of it.
template <class Change>
void change_places(const config::Secret& settings, RequestHead& head, const Change& change) {
  if (settings.form == "query") {
    head.target = change_in_query(head.target, settings.parameter, change);
    return;
  }
  const std::string name = settings.form == "header" ? settings.header : "Authorization";
  HttpFields changed;
  for (const HttpField& field : head.fields.all()) {
    const bool basic = is_basic(field.value);
    std::string value = field.value;
    if (same_word(field.name, name)) {
      if (settings.form == "header" || (settings.form == "bearer" && !basic)) value = change(field.value);
      if (settings.form == "basic" && basic) {
        const std::string_view coded = std::string_view(field.value).substr(kBasic.size());
        const std::string plain = base64_decode(coded), after = change(plain);
        if (after != plain) value = "Basic " + base64_encode(after);
      }
    }
    changed.add(field.name, value);
  }
  head.fields = std::move(changed);
}

std::string with_value(const SecretUse& use, std::string_view text, std::string_view value) {
  const std::string& placeholder = use.placeholder;
  if (use.settings->form == "query") return replace_all(text, placeholder, percent_encode(value));
  // `curl -u "$NAME"`: name and password in one; what is asked for then is an empty password.
  const bool all = use.settings->form == "basic" && value.find(':') != value.npos &&
                   (text == placeholder || text == placeholder + ":");
  return all ? std::string(value) : replace_all(text, placeholder, value);
}

std::string body_form(std::string_view value, const RequestHead& head) {
  const std::string* type = head.fields.find("Content-Type");
  const std::string lower = type == nullptr ? std::string() : to_lower(*type);
  if (lower.starts_with("application/x-www-form-urlencoded")) return percent_encode(value);
  return lower.find("json") != lower.npos ? json_escape(value) : std::string(value);
}

}  // namespace

SecretRequests::SecretRequests(std::shared_ptr<const Secrets> secrets, const std::string& host, uint16_t port)
    : secrets_(std::move(secrets)), uses_(secrets_->uses_for(host, port)) {}

SecretRequests::~SecretRequests() {
  for (std::string& text : sent_) ::explicit_bzero(text.data(), text.size());
}

bool SecretRequests::in_bodies() const {
  return std::ranges::any_of(uses_, [](const SecretUse& use) { return use.settings->in_body; });
}

asio::awaitable<bool> SecretRequests::put_into(RequestHead& head, std::string* body) {
  bool any = false;
  for (const SecretUse& use : uses_) {
    bool wanted = use.settings->in_body && body != nullptr && body->find(use.placeholder) != body->npos;
    change_places(*use.settings, head, [&](std::string_view text) {
      wanted = wanted || text.find(use.placeholder) != text.npos;
      return std::string(text);
    });
    if (!wanted) continue;
    const auto value = co_await secrets_->store().value(use.name);
    put(use, value->reveal(), head, body);
    any = true;
  }
  co_return any;
}

void SecretRequests::put(const SecretUse& use, std::string_view value, RequestHead& head, std::string* body) {
  change_places(*use.settings, head, [&](std::string_view text) { return with_value(use, text, value); });
  if (use.settings->in_body && body != nullptr)
    *body = replace_all(*body, use.placeholder, body_form(value, head));
  const std::string* credentials = head.fields.find("Authorization");
  if (use.settings->form != "basic" || credentials == nullptr || !is_basic(*credentials)) return;
  std::string coded = credentials->substr(kBasic.size());
  if (std::ranges::find(sent_, coded) == sent_.end()) sent_.push_back(std::move(coded));
}

Mask SecretRequests::mask() const {
  std::vector<std::string> hidden = sent_;
  for (const SecretUse& use : uses_) {
    const auto value = secrets_->store().known(use.name);
    if (!value) continue;
    const std::string_view text = value->reveal();
    for (std::string& form : forms_of(text)) hidden.push_back(std::move(form));
    if (use.settings->form != "basic") continue;
    hidden.push_back(base64_encode(text));
    const std::string_view password = text.substr(text.find(':') + 1);
    if (password.size() >= kMinSecretBytes && password.size() < text.size())
      for (std::string& form : forms_of(password)) hidden.push_back(std::move(form));
  }
  return Mask(std::move(hidden));
}

}  // namespace hutch::net
