#pragma once

#include "tools/sandbox_exec.h"

namespace hutch::tools {

struct SandboxEvalArgs {
  std::string sandbox_id, code, language, session, path;
  bool restart = false;
  std::optional<double> timeout_s;

  template <class V>
  void describe(V& v) {
    v.optional("sandbox_id", sandbox_id, kSandboxIdHelp);
    v.required("code", code, "The code.", {.min = 1});
    v.optional("language", language,
               "python, javascript, typescript, bash, sh, ruby, perl, php, lua or r (default: guessed).");
    v.optional("session", session, "Keeps its state (default: a fresh process).", {.max = 64});
    v.optional("restart", restart, "Begin the session anew (default false).");
    v.optional("path", path, "File for the code.");
    v.optional("timeout_s", timeout_s, "Seconds until its end (default 120).", {.min = 0.05, .max = 3600});
  }
};

struct SandboxEvalResult {
  CommandReport report;
  std::string language;
  std::optional<std::string> value, session;
  std::vector<mcp::Image> images;  // as content besides this

  template <class V>
  void describe(V& v) {
    report.describe(v);
    v.required("language", language, "The language that it was taken for.");
    v.optional("session", session, "The session that it ran in.");
    v.optional("value", value, "Value of the last expression, as the language shows it.");
  }
};

}  // namespace hutch::tools
