#include "config/load.h"

#include "base/sys.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::config;
using hutch::test::error_of;

struct Folder {
  Folder() : path("/tmp/hutch-config-" + sys::random_hex(6)) { sys::make_dirs(path); }
  ~Folder() { sys::remove_tree(path); }

  /// Options of a user whose home is this folder, with a file of this content.
  LoadOptions with(const std::string& yaml, std::map<std::string, std::string> environment = {}) const {
    sys::write_file(path + "/h.yaml", yaml);
    environment.emplace("HOME", path);
    return {.file = path + "/h.yaml", .environment = std::move(environment)};
  }
  std::string problems(const std::string& yaml, std::map<std::string, std::string> environment = {}) const {
    return error_of([&] { (void)load_config(with(yaml, std::move(environment))); });
  }

  std::string path;
};

}  // namespace

TEST_SUITE("configuration") {
  TEST_CASE_FIXTURE(Folder, "without any file the defaults hold and the default profile exists") {
    const LoadedConfig loaded = load_config({.environment = {{"HOME", path}}});
    CHECK(loaded.config.sandbox.memory == gib(1));
    CHECK(loaded.config.toolsets == std::vector<std::string>{"core", "files", "ports", "templates"});
    CHECK(loaded.config.profiles.count("default") == 1);
    CHECK(loaded.config.home == path + "/.local/share/hutch");
    CHECK(loaded.origins.empty());
  }

  TEST_CASE_FIXTURE(Folder, "the data folder depends on the user and on the environment") {
    CHECK(load_config({.is_root = true}).config.home == "/var/lib/hutch");
    CHECK(load_config({.environment = {{"HOME", path}, {"XDG_DATA_HOME", "/data"}}}).config.home ==
          "/data/hutch");
    CHECK(load_config({.environment = {{"HUTCH_HOME", "/h"}}, .is_root = true}).config.home == "/h");
    CHECK(load_config(with("home: ~/h\n")).config.home == path + "/h");
    CHECK_CONTAINS(error_of([] { (void)load_config({}); }), "Try: set HUTCH_HOME");
  }

  TEST_CASE_FIXTURE(Folder, "the first file of --config, HUTCH_CONFIG and the XDG folder is read") {
    sys::make_dirs(path + "/.config/hutch");
    sys::write_file(path + "/.config/hutch/config.yaml", "sandbox: {pids: 100}\n");
    sys::write_file(path + "/named.yaml", "sandbox: {pids: 200}\n");
    LoadOptions options{.environment = {{"HOME", path}}};
    CHECK(load_config(options).config.sandbox.pids == 100);
    options.environment["HUTCH_CONFIG"] = path + "/named.yaml";
    CHECK(load_config(options).config.sandbox.pids == 200);
    options.file = path + "/.config/hutch/config.yaml";
    CHECK(load_config(options).config.sandbox.pids == 100);
    options.file = path + "/none.yaml";
    CHECK_CONTAINS(error_of([&] { (void)load_config(options); }), "none.yaml: No such file");
  }

  TEST_CASE_FIXTURE(Folder, "variables win over the file and both are named as origins") {
    const LoadedConfig loaded = load_config(
        with("sandbox:\n  pids: 100\n  cpus: 1\ntoolsets: [core]\nprofiles:\n  big:\n    memory: 4g\n",
             {{"HUTCH_SANDBOX__PIDS", "300"},
              {"HUTCH_TOOLSETS", "core,lean"},
              {"HUTCH_PROFILES__BIG__CPUS", "8"},
              {"HUTCH_LOG_LEVEL", ""}}));
    CHECK(loaded.config.sandbox.pids == 300);
    CHECK(loaded.config.sandbox.cpus == 1);
    CHECK(loaded.config.toolsets == std::vector<std::string>{"core", "lean"});
    CHECK(loaded.config.profiles.at("big").memory == gib(4));
    CHECK(loaded.config.profiles.at("big").cpus == 8);
    CHECK(loaded.origins.at("sandbox.pids") == "HUTCH_SANDBOX__PIDS");
    CHECK(loaded.origins.at("sandbox.cpus") == path + "/h.yaml:3:3");
    const std::string text = to_text(loaded);
    CHECK_CONTAINS(text, "sandbox.pids: 300  # HUTCH_SANDBOX__PIDS\n");
    CHECK_CONTAINS(text, "sandbox.memory: \"1g\"  # default\n");
    CHECK_CONTAINS(text, "profiles.big.cpus: 8  # HUTCH_PROFILES__BIG__CPUS\n");
  }

  TEST_CASE_FIXTURE(Folder, "unknown and wrong variables are named, all of them") {
    const std::string text = problems("", {{"HUTCH_SANDBOX__MEMROY", "1g"},
                                           {"HUTCH_SANDBOX__PIDS", "many"},
                                           {"HUTCH_LIMTS__JSON_DEPTH", "5"},
                                           {"HUTCH_A__B__C__D", "1"},
                                           {"HUTCH_TEST_ANYTHING", "1"}});
    CHECK_CONTAINS(
        text,
        "environment variable HUTCH_SANDBOX__MEMROY: 'sandbox.memroy' is not known; did you mean 'memory'?");
    CHECK_CONTAINS(text, "environment variable HUTCH_SANDBOX__PIDS: 'sandbox.pids' must be an integer");
    CHECK_CONTAINS(
        text, "environment variable HUTCH_LIMTS__JSON_DEPTH: 'limts' is not known; did you mean 'limits'?");
    CHECK_CONTAINS(text, "environment variable HUTCH_A__B__C__D: 'a.b.c.d' cannot be set by a variable");
    CHECK_FALSE(hutch::test::contains(text, "ANYTHING"));
    CHECK_CONTAINS(problems("", {{"HUTCH_SANDBOX", "x"}, {"HUTCH_SANDBOX__PIDS", "9"}}), "HUTCH_SANDBOX");
  }

  TEST_CASE_FIXTURE(Folder,
                    "values out of range, repeated keys and wrong types stop the start with their place") {
    const std::string text = problems(
        "sandbox:\n  memory: 1m\n  cpus: 0.01\n  pids: '5'\n  pids: 9\nlimits:\n  json_deth: 5\nresults: "
        "both\n");
    for (const char* part :
         {":2:3: 'sandbox.memory' must be at least 16m, got 1m", ":3:3: 'sandbox.cpus' must be at least 0.05",
          ":5:3: 'sandbox.pids' is given twice, first in line 4",
          ":7:3: 'limits.json_deth' is not known; did you mean 'json_depth'?",
          ":8:1: 'results' must be one of text, structured"})
      CHECK_CONTAINS(text, path + "/h.yaml" + part);
  }

  TEST_CASE_FIXTURE(Folder, "what fields say together is checked, too") {
    const std::string text = problems(
        "oci: {runtime: crunn}\ndefault_profile: bg\nprofiles:\n  big:\n    workdir: work\n    host_paths: "
        "[opt, ~/.nvm]\n  Bad Name: {}\n");
    for (const char* part :
         {":1:7: 'oci.runtime' must be auto, crun, runc, runsc or an absolute path, got 'crunn'",
          ":2:1: 'default_profile' names no profile: 'bg'",
          ":5:5: 'profiles.big.workdir' must be an absolute path",
          "'profiles.big.host_paths[0]' must be an absolute path, got 'opt'",
          "'profiles.Bad Name' is no name"})
      CHECK_CONTAINS(text, part);
    CHECK_FALSE(hutch::test::contains(text, "host_paths[1]"));
  }

  TEST_CASE_FIXTURE(Folder, "levels of memory pressure begin and end one after the other") {
    const auto loaded = load_config(with("pressure: {warning: {enter: 90, leave: 95}}\n"));
    CHECK(loaded.config.pressure.warning.psi == 10);
    const std::string text =
        problems("pressure:\n  warning: {enter: 20, leave: 20}\n  high: {enter: 19, leave: 30, psi: 5}\n");
    for (const char* part : {"'pressure.warning.leave' must be more than pressure.warning.enter (20)",
                             "'pressure.high' must begin and end at less than the level below it (20 and 20)",
                             "'pressure.high.psi' must be at least that of the level below it (10)"})
      CHECK_CONTAINS(text, part);
    CHECK_FALSE(hutch::test::contains(text, "critical"));
  }

  TEST_CASE_FIXTURE(Folder, "a profile overrides the defaults and an unknown one names the known ones") {
    const Config config =
        load_config(with("sandbox: {memory: 2g, pids: 64}\nprofiles: {small: {memory: 64m}}\n")).config;
    CHECK(settings_of(config, "small").memory == mib(64));
    CHECK(settings_of(config, "small").pids == 64);
    CHECK(settings_of(config, "default").memory == gib(2));
    CHECK_CONTAINS(error_of([&] { (void)settings_of(config, "tiny"); }),
                   "Try: the profiles are default, small");
  }
}
