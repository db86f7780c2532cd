#include "mcp/versions.h"

#include <fmt/format.h>

#include <array>

namespace hutch::mcp {

namespace {

constexpr std::array<std::string_view, 5> kNames = {"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25",
                                                    "2026-07-28"};
constexpr Revision kLatestLegacy = Revision::v2025_11_25;
constexpr Revision kModern = Revision::v2026_07_28;

constexpr const char* kVersionKey = "io.modelcontextprotocol/protocolVersion";
constexpr const char* kCapabilitiesKey = "io.modelcontextprotocol/clientCapabilities";
constexpr const char* kClientInfoKey = "io.modelcontextprotocol/clientInfo";
constexpr const char* kServerInfoKey = "io.modelcontextprotocol/serverInfo";

constexpr int kUnsupportedVersion = -32022;
// The tools of a process never change, so the host may keep the list for as long as it likes.
constexpr int64_t kListTtlMs = 3'600'000;

/// The list of tools cannot change while a process lives, so `listChanged` is not declared.
ordered_json capabilities() {
  return {{"tools", ordered_json::object()}};
}

ordered_json supported_versions() {
  return ordered_json::array({revision_name(kModern)});
}

ordered_json info_json(Revision revision, const ServerInfo& info) {
  ordered_json out = {{"name", info.name}};
  if (revision >= Revision::v2025_06_18 && !info.title.empty()) out["title"] = info.title;
  out["version"] = info.version;
  return out;
}

ProtocolError missing_field(const char* key, std::string_view type) {
  return {rpc::kInvalidParams, fmt::format("Invalid params: _meta[\"{}\"] is missing or not {}", key, type)};
}

}  // namespace

std::string_view revision_name(Revision revision) {
  return kNames[static_cast<size_t>(revision)];
}

bool is_modern(Revision revision) {
  return revision >= kModern;
}

Revision negotiate(std::string_view requested) {
  for (size_t i = 0; i <= static_cast<size_t>(kLatestLegacy); ++i)
    if (kNames[i] == requested) return static_cast<Revision>(i);
  return kLatestLegacy;
}

bool has_envelope(const json& meta) {
  return meta.contains(kVersionKey) || meta.contains(kCapabilitiesKey);
}

std::optional<ProtocolError> envelope_problem(const json& meta) {
  const auto version = meta.find(kVersionKey);
  if (version == meta.end() || !version->is_string()) return missing_field(kVersionKey, "a string");
  const auto capabilities_field = meta.find(kCapabilitiesKey);
  if (capabilities_field == meta.end() || !capabilities_field->is_object())
    return missing_field(kCapabilitiesKey, "an object");
  if (*version == revision_name(kModern)) return std::nullopt;
  return ProtocolError{kUnsupportedVersion,
                       "Unsupported protocol version",
                       {{"supported", supported_versions()}, {"requested", *version}}};
}

ProtocolError missing_envelope() {
  return {
      rpc::kInvalidParams,
      fmt::format("Invalid params: neither `initialize` was seen nor _meta[\"{}\"] is there", kVersionKey)};
}

std::string client_name(const json& meta) {
  const auto info = meta.find(kClientInfoKey);
  if (info == meta.end() || !info->is_object()) return {};
  const auto name = info->find("name");
  return name != info->end() && name->is_string() ? name->get<std::string>() : std::string();
}

ordered_json initialize_result(Revision revision, const ServerInfo& info, std::string_view instructions) {
  ordered_json out = {{"protocolVersion", revision_name(revision)}};
  out["capabilities"] = capabilities();
  out["serverInfo"] = info_json(revision, info);
  if (!instructions.empty()) out["instructions"] = instructions;
  return out;
}

ordered_json discover_result(std::string_view instructions) {
  ordered_json out = {{"supportedVersions", supported_versions()}};
  out["capabilities"] = capabilities();
  if (!instructions.empty()) out["instructions"] = instructions;
  return out;
}

ordered_json tool_for(Revision revision, ordered_json tool) {
  if (revision >= Revision::v2025_06_18) return tool;
  // 2025-03-26 knows a title, but inside of the annotations; 2024-11-05 knows neither.
  if (revision == Revision::v2025_03_26 && tool.contains("title"))
    tool["annotations"]["title"] = tool["title"];
  if (revision == Revision::v2024_11_05) tool.erase("annotations");
  for (const char* key : {"title", "outputSchema", "_meta"}) tool.erase(key);
  return tool;
}

ordered_json call_result_for(Revision revision, ordered_json result) {
  if (revision < Revision::v2025_06_18) result.erase("structuredContent");
  return result;
}

ordered_json progress_params(Revision revision, const json& token, int64_t progress,
                             std::string_view message) {
  ordered_json out;
  out["progressToken"] = token;
  out["progress"] = progress;
  if (revision >= Revision::v2025_03_26 && !message.empty()) out["message"] = message;
  return out;
}

ordered_json finish_result(Revision revision, ordered_json result, Cacheable cacheable,
                           const ServerInfo& info) {
  if (!is_modern(revision)) return result;
  ordered_json out = {{"resultType", "complete"}};
  out.update(result);
  if (cacheable == Cacheable::yes) {
    out["ttlMs"] = kListTtlMs;
    out["cacheScope"] = "public";
  }
  out["_meta"][kServerInfoKey] = info_json(revision, info);
  return out;
}

}  // namespace hutch::mcp
