#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mcp/call_context.h"
#include "schema/json.h"

namespace hutch::mcp {

struct ResourceInfo {
  /// "hutch://status", or a template of RFC 6570 with variables: `{name}` has no slash in it, `{+name}` may
  /// have some. What is no template is listed as it is; what one stands for is not.
  std::string uri;
  std::string name;   // short, for programs
  std::string title;  // for people
  std::string description, mime_type;
};

/// What was read: text, or bytes in base64.
struct ResourceContent {
  std::string mime_type, content;
  bool is_base64 = false;
};

/// What a client can read besides calling tools. Filled before the server runs, constant afterwards; reads
/// may then come from many threads.
class ResourceRegistry {
 public:
  using Variables = std::map<std::string, std::string>;  // of a template, decoded
  using Reader = std::function<ResourceContent(const Variables&, CallContext&)>;
  /// The values that a variable can have now.
  using Completer = std::function<std::vector<std::string>()>;

  /// Throws Error(internal) on an address that was added already, or is no template that can be understood.
  void add(ResourceInfo info, Reader read, std::map<std::string, Completer> completers = {});
  bool empty() const noexcept { return entries_.empty(); }

  /// Full listings for resources/list and resources/templates/list.
  ordered_json list() const;
  ordered_json list_templates() const;

  /// One entry of `contents`. Throws not_found when nothing has this address, and what its reader throws.
  ordered_json read(const std::string& uri, CallContext& context) const;

  struct Completion {
    std::vector<std::string> values;  // at most 100
    size_t total = 0;
  };
  /// Values of a template's variable that begin with `begun`; none for one that has no completer. Nothing for
  /// a template that was never listed, or has no such variable.
  std::optional<Completion> complete(const std::string& uri_template, const std::string& variable,
                                     std::string_view begun) const;

 private:
  struct Piece {
    std::string literal, variable;  // one of them is empty
    bool takes_slashes = false;
  };
  struct Entry {
    ResourceInfo info;
    std::vector<Piece> pieces;
    Reader read;
    std::map<std::string, Completer> completers;

    bool is_template() const;
  };

  static std::vector<Piece> pieces_of(const std::string& uri);
  static std::optional<Variables> match(const std::vector<Piece>& pieces, std::string_view uri);
  ordered_json listing(bool templates) const;

  std::vector<Entry> entries_;
};

}  // namespace hutch::mcp
