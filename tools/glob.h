#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace hutch::tools {

/// A pattern for paths relative to a folder: `*`, `?` and `[...]` within a name, `**` for any number of
/// folders,
/// `{a,b}` for either. Without a slash it is matched with the name alone, whatever the folder. Names that
/// begin with a dot are nothing special.
class Glob {
 public:
  /// Throws invalid_argument. An empty pattern matches everything.
  explicit Glob(std::string_view pattern);

  bool matches(std::string_view path) const;
  /// How many levels down a match can be; 0 when there is no bound (`**`).
  size_t depth() const noexcept { return depth_; }

 private:
  using Segments = std::vector<std::string>;
  void add(std::string_view pattern);

  std::vector<Segments> alternatives_;  // one segment: the name alone
  size_t depth_ = 1;
};

}  // namespace hutch::tools
