#pragma once

#include <stop_token>
#include <string>

#include "base/unique_fd.h"
#include "sandbox/image_tool.h"

namespace hutch::sandbox {

/// Held while something of that name is made in `folder`, by one of all servers and calls: a byte of the file
/// `.turns` is locked, so that nothing is left behind, whoever is killed. Waits for its turn; `waiting` is
/// what progress says meanwhile. Throws conflict when it is stopped.
class Turn {
 public:
  Turn(const std::string& folder, const std::string& name, const char* waiting, const Progress& progress,
       const std::stop_token& stop);
  bool waited() const noexcept { return waited_; }

 private:
  const UniqueFd file_;
  bool waited_ = false;
};

}  // namespace hutch::sandbox
