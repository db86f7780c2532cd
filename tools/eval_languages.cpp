#include "tools/eval_languages.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/error.h"
#include "schema/text.h"

namespace hutch::tools {

namespace {

/// Runs what stands on standard input as the module __main__; tracebacks show its lines and none of the
/// driver's.
constexpr const char* kPythonDriver = R"py(
def _run():
    import ast, linecache, os, sys, traceback, types
    token, name = os.environ.pop("HUTCH_EVAL_TOKEN"), os.environ.pop("HUTCH_EVAL_NAME")
    source = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    main = types.ModuleType("__main__")
    main.__file__ = name
    sys.modules["__main__"], sys.argv = main, [name]
    sys.path[0] = os.path.dirname(name) if name.startswith("/") else ""
    try:
        tree = ast.parse(source, name)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, name, "exec"), main.__dict__)
        if last is not None:
            value = eval(compile(last, name, "eval"), main.__dict__)
            if value is not None:
                text = repr(value)
                if len(text) > 3000:
                    text = text[:3000] + "... (%d characters)" % len(text)
                sys.stdout.flush()
                print("\x1e" + token + text + "\x1e", end="", flush=True)
    except SystemExit:
        raise
    except BaseException as error:
        frames = error.__traceback__.tb_next
        while frames is not None and frames.tb_frame.f_code.co_filename != name:
            frames = frames.tb_next
        sys.stdout.flush()
        traceback.print_exception(type(error), error, frames)
        sys.exit(1)
_run()
)py";

/// Scripts first; what only a module may hold (import, top-level await) runs as one and has no value.
constexpr const char* kJavaScriptDriver = R"js(
const fs = require('fs'), vm = require('vm'), util = require('util'), path = require('path');
const token = process.env.HUTCH_EVAL_TOKEN, name = process.env.HUTCH_EVAL_NAME;
delete process.env.HUTCH_EVAL_TOKEN; delete process.env.HUTCH_EVAL_NAME;
const source = fs.readFileSync(0, 'utf8');
const base = name.startsWith('/') ? name : path.join(process.cwd(), 'eval.js');
Object.assign(globalThis, { require: require('module').createRequire(base), module: { exports: {} }, __filename: base,
                            __dirname: path.dirname(base) });
globalThis.exports = module.exports;
const show = (value) => {
  if (value === undefined) return;
  let text = util.inspect(value);
  if (text.length > 3000) text = text.slice(0, 3000) + `... (${text.length} characters)`;
  fs.writeSync(1, '\x1e' + token + text + '\x1e');
};
const fail = (error) => { console.error(error); process.exitCode = 1; };
(async () => {
  let script;
  try {
    script = new vm.Script(source, { filename: name, importModuleDynamically: vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER });
  } catch (error) {
    if (!/import|export|await/.test(String(error.message))) return fail(error);
    return import('data:text/javascript;base64,' + Buffer.from(source).toString('base64')).catch(fail);
  }
  try { show(await script.runInThisContext()); } catch (error) { fail(error); }
})();
)js";

const std::vector<Language>& table() {
  static const std::vector<Language> languages = {
      {.name = "python", .argv = {"python3", "-c", kPythonDriver}, .has_value = true, .needs = "python3"},
      {.name = "javascript", .argv = {"node", "-e", kJavaScriptDriver}, .has_value = true, .needs = "node"},
      {.name = "typescript",
       .argv = {"node", "--no-warnings", "--experimental-strip-types", "--input-type=module-typescript", "-"},
       .needs = "node 22.18 or newer"},
      {.name = "bash", .argv = {"bash", "-c"}, .code_is_last_argument = true, .needs = "bash"},
      {.name = "sh", .argv = {"sh", "-c"}, .code_is_last_argument = true, .needs = "sh"},
      {.name = "ruby", .argv = {"ruby", "-"}, .needs = "ruby"},
      {.name = "perl", .argv = {"perl", "-"}, .needs = "perl"},
      {.name = "php", .argv = {"php"}, .needs = "php"},
      {.name = "lua", .argv = {"lua", "-"}, .needs = "lua"},
      {.name = "r", .argv = {"Rscript", "-"}, .needs = "Rscript"},
  };
  return languages;
}

std::string_view first_line(std::string_view code) {
  return code.substr(0, code.find('\n'));
}

std::string by_ending(std::string_view path) {
  static const std::map<std::string_view, const char*> endings = {{"py", "python"},
                                                                  {"js", "javascript"},
                                                                  {"mjs", "javascript"},
                                                                  {"cjs", "javascript"},
                                                                  {"ts", "typescript"},
                                                                  {"sh", "bash"},
                                                                  {"bash", "bash"},
                                                                  {"rb", "ruby"},
                                                                  {"pl", "perl"},
                                                                  {"php", "php"},
                                                                  {"lua", "lua"},
                                                                  {"R", "r"},
                                                                  {"r", "r"}};
  const size_t dot = path.rfind('.');
  if (dot == std::string_view::npos) return "";
  const auto it = endings.find(path.substr(dot + 1));
  return it == endings.end() ? "" : it->second;
}

bool contains_any(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::ranges::any_of(
      words, [&](std::string_view word) { return text.find(word) != std::string_view::npos; });
}

}  // namespace

std::vector<std::string_view> language_names() {
  std::vector<std::string_view> names;
  for (const auto& language : table()) names.push_back(language.name);
  return names;
}

Language find_language(std::string_view name) {
  static const std::map<std::string_view, std::string_view> aliases = {{"py", "python"},
                                                                       {"python3", "python"},
                                                                       {"js", "javascript"},
                                                                       {"node", "javascript"},
                                                                       {"ts", "typescript"},
                                                                       {"shell", "bash"},
                                                                       {"R", "r"}};
  if (const auto alias = aliases.find(name); alias != aliases.end()) name = alias->second;
  const auto it = std::ranges::find(table(), name, &Language::name);
  if (it != table().end()) return *it;
  const auto names = language_names();
  throw Error(Errc::invalid_argument,
              fmt::format("the language '{}' is not known", schema::valid_utf8(name.substr(0, 40))))
      .hint(fmt::format("one of {}; sandbox_exec runs anything else that is installed",
                        fmt::join(names, ", ")));
}

std::string guess_language(std::string_view code, std::string_view path) {
  const std::string_view line = first_line(code);
  if (line.starts_with("#!")) {
    for (const char* name : {"python", "node", "ruby", "perl", "php", "lua", "Rscript", "bash", "sh"})
      if (line.find(name) != std::string_view::npos)
        return std::string_view(name) == "Rscript" ? "r" : find_language(name).name;
  }
  if (const std::string language = by_ending(path); !language.empty()) return language;
  if (code.starts_with("<?php")) return "php";
  if (contains_any(code, {"console.log", "require(", "=> ", "const ", "let ", "function("}))
    return "javascript";
  if (contains_any(code, {"print(", "import ", "def ", "for ", "lambda "})) return "python";
  if (contains_any(code, {"echo ", "fi\n", "$(", "ls ", "cd ", "export "})) return "bash";
  return "python";
}

}  // namespace hutch::tools
