#include <fmt/format.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "base/sys.h"
#include "cli/attach_client.h"
#include "cli/commands.h"
#include "cli/known_sandboxes.h"
#include "cli/raw_terminal.h"
#include "schema/json_writer.h"

namespace hutch::cli {

namespace {

using nlohmann::json;

constexpr int kHutchFailed = 125;  // as in main.cpp

/// JSON carries text only: other bytes would arrive as something else.
void check_text(const std::string& word) {
  if (schema::valid_utf8(word) != word)
    throw Error(Errc::invalid_argument, fmt::format("'{}' is not UTF-8", schema::valid_utf8(word)))
        .hint("`hutch exec` takes arguments that are text; others can come from a script in the sandbox");
}

sandbox::AttachRequest attach_request(const Options& options) {
  sandbox::AttachRequest request;
  request.argv.assign(options.words.begin() + 1, options.words.end());
  if (!request.argv.empty() && request.argv.front() == "--") request.argv.erase(request.argv.begin());
  if (request.argv.empty())
    throw Error(Errc::invalid_argument, "no command is given").hint("hutch exec -it SANDBOX bash");
  request.workdir = options.workdir.value_or("");
  request.input = options.interactive || options.terminal;
  request.terminal = options.terminal;
  if (options.terminal) {
    const auto size = terminal_size();
    request.rows = size.rows;
    request.columns = size.columns;
    if (const char* kind = std::getenv("TERM")) request.env["TERM"] = kind;
  }
  for (const auto& variable : options.env) {
    const size_t equals = variable.find('=');
    if (equals == std::string::npos || equals == 0)
      throw Error(Errc::invalid_argument, fmt::format("--env {} has no value", variable))
          .hint("--env NAME=VALUE");
    request.env[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  for (const auto& word : request.argv) check_text(word);
  for (const auto& [name, value] : request.env) check_text(name), check_text(value);
  check_text(request.workdir);
  return request;
}

/// A line of the answer, and what came behind it.
std::pair<std::string, std::string> read_answer(int socket) {
  std::string bytes;
  char piece[4096];
  while (bytes.find('\n') == std::string::npos) {
    const ssize_t n = sys::retry_eintr([&] { return ::recv(socket, piece, sizeof piece, 0); });
    if (n < 0 && errno == EAGAIN) throw Error(Errc::timeout, "the server does not answer");
    if (n <= 0) throw Error(Errc::unavailable, "the server closed the connection");
    bytes.append(piece, static_cast<size_t>(n));
  }
  const size_t end = bytes.find('\n');
  return {bytes.substr(0, end), bytes.substr(end + 1)};
}

/// The exit code when the command does not even run and that is its own fault.
std::optional<int> refused(const std::string& answer) {
  const json parsed = json::parse(answer);
  if (!parsed.contains("error")) return std::nullopt;
  const json& error = parsed["error"];
  const auto message = error.value("message", "the server gave no reason");
  const int code = error.contains("data") ? error["data"].value("exit_code", 0) : 0;
  if (code == 0) throw Error(Errc::internal, message);
  fmt::print(stderr, "hutch: {}\n", message);
  return code;
}

AttachClient::End attach_to(UniqueFd server, std::string_view received,
                            const sandbox::AttachRequest& request) {
  // Not before: until now a signal ends us, and with us the command.
  UniqueFd signals = watch_signals(request.terminal);
  std::optional<RawTerminal> raw;
  if (request.terminal) raw.emplace(STDIN_FILENO);
  return AttachClient(std::move(server), received, std::move(signals), request.input, request.terminal).run();
}

}  // namespace

int exec(const Options& options) {
  if (options.words.empty())
    throw Error(Errc::invalid_argument, "no sandbox is given").hint("hutch exec -it SANDBOX bash");
  if (options.terminal && ::isatty(STDIN_FILENO) == 0)
    throw Error(Errc::invalid_argument, "standard input is no terminal, so -t has none to attach")
        .hint("`hutch exec -i` passes a file or a pipe on");
  ::signal(SIGPIPE, SIG_IGN);
  sandbox::AttachRequest request = attach_request(options);
  const KnownSandbox sandbox = find_known(known_sandboxes(options), options.words.front());
  request.sandbox_id = sandbox.id;
  const std::string line = control_request("sandbox/attach", schema::to_json(request));
  if (line.size() >= sandbox::ControlSocket::kMaxLine)
    throw Error(Errc::invalid_argument, "the command line is longer than 256 KiB")
        .hint("`hutch exec -i` passes data on as standard input");

  UniqueFd server = sandbox::ControlSocket::connect(sandbox.server.folder, line);
  const auto [answer, received] = read_answer(server.get());
  if (const auto code = refused(answer)) return *code;
  const auto end = attach_to(std::move(server), received, request);
  if (!end.message.empty()) fmt::print(stderr, "hutch: {}\n", end.message);
  return end.exit_code >= 0 ? end.exit_code : kHutchFailed;
}

}  // namespace hutch::cli
