#include "bench/bench.h"

#include "base/error.h"
#include "cli/commands.h"

namespace hutch::cli {

int run_bench(const Options& options) {
  if (options.quick && options.full)
    throw Error(Errc::invalid_argument, "--quick and --long exclude each other")
        .hint("give one of --quick, --long");
  bench::BenchOptions out;
  out.length = options.quick  ? bench::Length::quick
               : options.full ? bench::Length::full
                              : bench::Length::usual;
  out.only = split_list(options.only.value_or(""));
  out.json_file = options.json_file;
  out.peers_file = options.peers_file;
  out.version = version();
  return bench::run(out);
}

}  // namespace hutch::cli
