#include "mcp/resources.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::mcp {

namespace {

constexpr size_t kMaxCompletions = 100;  // by the protocol
constexpr size_t kShownUri = 200;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/// Percent signs that encode nothing stay as they are.
std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
    out += low >= 0 ? static_cast<char>(high * 16 + low) : text[i];
    if (low >= 0) i += 2;
  }
  return out;
}

}  // namespace

bool ResourceRegistry::Entry::is_template() const {
  return std::ranges::any_of(pieces, [](const Piece& piece) { return !piece.variable.empty(); });
}

std::vector<ResourceRegistry::Piece> ResourceRegistry::pieces_of(const std::string& uri) {
  std::vector<Piece> out;
  for (std::string_view rest = uri; !rest.empty();) {
    const size_t open = rest.find('{');
    if (open > 0) out.push_back({.literal = std::string(rest.substr(0, open))});
    if (open == rest.npos) break;
    const size_t close = rest.find('}', open);
    std::string variable(rest.substr(open + 1, close == rest.npos ? close : close - open - 1));
    const bool takes_slashes = variable.starts_with('+');
    if (takes_slashes) variable.erase(0, 1);
    // Between two variables there must be something that tells them apart.
    const bool apart = out.empty() || out.back().variable.empty();
    if (close == rest.npos || variable.empty() || !apart)
      throw Error(Errc::internal, fmt::format("'{}' is no template of a resource", uri));
    out.push_back({.variable = std::move(variable), .takes_slashes = takes_slashes});
    rest.remove_prefix(close + 1);
  }
  return out;
}

std::optional<ResourceRegistry::Variables> ResourceRegistry::match(const std::vector<Piece>& pieces,
                                                                   std::string_view uri) {
  Variables variables;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    if (piece.variable.empty()) {
      if (!uri.starts_with(piece.literal)) return std::nullopt;
      uri.remove_prefix(piece.literal.size());
      continue;
    }
    const size_t end = i + 1 < pieces.size() ? uri.find(pieces[i + 1].literal) : uri.size();
    if (end == uri.npos || end == 0) return std::nullopt;
    const std::string_view value = uri.substr(0, end);
    if (!piece.takes_slashes && value.find('/') != value.npos) return std::nullopt;
    variables[piece.variable] = decoded(value);
    uri.remove_prefix(end);
  }
  return uri.empty() ? std::optional(std::move(variables)) : std::nullopt;
}

void ResourceRegistry::add(ResourceInfo info, Reader read, std::map<std::string, Completer> completers) {
  if (std::ranges::any_of(entries_, [&](const Entry& entry) { return entry.info.uri == info.uri; }))
    throw Error(Errc::internal, fmt::format("resource {} was added twice", info.uri));
  std::vector<Piece> pieces = pieces_of(info.uri);
  entries_.push_back({std::move(info), std::move(pieces), std::move(read), std::move(completers)});
}

ordered_json ResourceRegistry::listing(bool templates) const {
  ordered_json out = ordered_json::array();
  for (const Entry& entry : entries_)
    if (entry.is_template() == templates)
      out.push_back({{templates ? "uriTemplate" : "uri", entry.info.uri},
                     {"name", entry.info.name},
                     {"title", entry.info.title},
                     {"description", entry.info.description},
                     {"mimeType", entry.info.mime_type}});
  for (ordered_json& entry : out)
    if (entry["mimeType"] == "") entry.erase("mimeType");
  return out;
}

ordered_json ResourceRegistry::list() const {
  return listing(false);
}

ordered_json ResourceRegistry::list_templates() const {
  return listing(true);
}

ordered_json ResourceRegistry::read(const std::string& uri, CallContext& context) const {
  for (const Entry& entry : entries_) {
    const auto variables = match(entry.pieces, uri);
    if (!variables) continue;
    ResourceContent content = during("reading " + schema::valid_utf8(uri.substr(0, kShownUri)),
                                     [&] { return entry.read(*variables, context); });
    ordered_json out = {{"uri", uri}, {"mimeType", std::move(content.mime_type)}};
    out[content.is_base64 ? "blob" : "text"] = std::move(content.content);
    return out;
  }
  throw Error(Errc::not_found,
              fmt::format("there is no resource '{}'", schema::valid_utf8(uri.substr(0, kShownUri))))
      .hint("`resources/list` and `resources/templates/list` say what there is");
}

std::optional<ResourceRegistry::Completion> ResourceRegistry::complete(const std::string& uri_template,
                                                                       const std::string& variable,
                                                                       std::string_view begun) const {
  const auto entry =
      std::ranges::find_if(entries_, [&](const Entry& e) { return e.info.uri == uri_template; });
  if (entry == entries_.end() ||
      std::ranges::none_of(entry->pieces, [&](const Piece& p) { return p.variable == variable; }))
    return std::nullopt;
  Completion out;
  const auto completer = entry->completers.find(variable);
  if (completer == entry->completers.end()) return out;
  for (std::string& value : completer->second()) {
    if (!value.starts_with(begun)) continue;
    if (++out.total <= kMaxCompletions) out.values.push_back(std::move(value));
  }
  return out;
}

}  // namespace hutch::mcp
