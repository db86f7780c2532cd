#pragma once

#include <nlohmann/json.hpp>

#include "sandbox/base.h"

namespace hutch::sandbox {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(Base, image, template_name, layers, user, workdir, env)

}  // namespace hutch::sandbox
