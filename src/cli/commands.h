#pragma once

#include "cli/options.h"

/// The verbs of the command line. Each returns the exit code of the program.
namespace hutch::cli {

int serve_mcp(const Options& options);
int run_once(const Options& options);
int exec(const Options& options);
int doctor(const Options& options);
int show_config(const Options& options);
int pool(const Options& options);
int gc(const Options& options);
int ls(const Options& options);
int image(const Options& options);
int info(const Options& options);
int rm(const Options& options);
int templates(const Options& options);
int stats(const Options& options);
int volume(const Options& options);
int run_bench(const Options& options);

/// How the program was built; in `hutch version`, serverInfo and reports.
const char* version() noexcept;

}  // namespace hutch::cli
