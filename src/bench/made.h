#pragma once

#include <string>
#include <vector>

#include "bench/mcp_client.h"

namespace hutch::bench {

Request create_request(const Json& arguments = Json::object());
Request destroy_request(const std::string& sandbox_id);
Request exec_true_request(const std::string& sandbox_id);

/// By the words of a `sandbox_create` result's text, which is what hosts ask for.
bool was_warm(const Json& result);

/// Sandboxes that were made one after the other, and how many of them were ready before.
class Made {
 public:
  explicit Made(McpClient& client, const Json& arguments = Json::object())
      : client_(client), create_(create_request(arguments)) {}

  /// Creates one; how long it took.
  double create_one();
  double destroy_one();
  void destroy_all();
  Json counts() const { return {{"created", created_}, {"warm", warm_}}; }

 private:
  McpClient& client_;
  const Request create_;
  std::vector<std::string> ids_;
  size_t created_ = 0, warm_ = 0;
};

}  // namespace hutch::bench
