#include "cli/commands.h"

namespace hutch::cli {

const char* version() noexcept {
  return HUTCH_VERSION;
}

}  // namespace hutch::cli
