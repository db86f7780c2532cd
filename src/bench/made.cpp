#include "bench/made.h"

namespace hutch::bench {

Request create_request(const Json& arguments) {
  return Request::tool("sandbox_create", arguments);
}

Request destroy_request(const std::string& sandbox_id) {
  return Request::tool("sandbox_destroy", {{"sandbox_id", sandbox_id}});
}

Request exec_true_request(const std::string& sandbox_id) {
  return Request::tool("sandbox_exec", {{"sandbox_id", sandbox_id}, {"argv", {"true"}}});
}

bool was_warm(const Json& result) {
  const Json& content = result.at("content");
  return !content.empty() && content[0].value("text", "").find("(it was ready)") != std::string::npos;
}

double Made::create_one() {
  const double ms = client_.exchange(create_);
  const Json result = client_.take_result();
  ids_.push_back(sandbox_id_of(result));
  ++created_;
  warm_ += was_warm(result);
  return ms;
}

double Made::destroy_one() {
  const Request request = destroy_request(ids_.back());
  ids_.pop_back();
  return client_.exchange(request);
}

void Made::destroy_all() {
  while (!ids_.empty()) (void)destroy_one();
  client_.check();
}

}  // namespace hutch::bench
