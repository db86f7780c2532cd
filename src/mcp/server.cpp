#include "mcp/server.h"

#include <fmt/format.h>

#include "base/log.h"
#include "schema/text.h"

namespace hutch::mcp {

namespace {

using rpc::kInvalidParams;
using rpc::kInvalidRequest;
using rpc::kMethodNotFound;

/// A copy of the member, or null when it is absent or `object` is none. For small members only.
json member(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() ? json() : *it;
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

ProtocolError method_not_found(const std::string& method) {
  return {kMethodNotFound, fmt::format("Method not found: {}", method.substr(0, 200))};
}

}  // namespace

Server::Server(const ToolRegistry& tools, ServerOptions options, int in_fd, int out_fd)
    : tools_(tools),
      options_(std::move(options)),
      reader_(in_fd, stop_.fd(), options_.message_max_bytes),
      writer_(out_fd),
      workers_(options_.worker_threads + 1) {}  // one of them reads

Server::End Server::run() {
  // This thread stays free, to stop what runs when the input ends.
  if (!workers_.hand_over([this] { lead(); })) lead();
  std::unique_lock lock(end_mutex_);
  ended_.wait(lock, [&] { return end_.has_value(); });
  lock.unlock();
  if (problem_) std::rethrow_exception(problem_);
  return shut_down(*end_);
}

void Server::lead() {
  try {
    for (std::string_view line;;) {
      if (const auto end = next_line(line)) return end_with(*end);
      handle(line);
      const auto call = std::exchange(own_call_, {});
      if (!call) continue;
      if (workers_.hand_over([this] { lead(); })) return call();
      // All threads are busy, or there can be none: then one call comes after the other.
      if (!workers_.submit(call)) call();
    }
  } catch (...) {
    end_with(End::eof, std::current_exception());
  }
}

/// Nothing when `line` is one.
std::optional<Server::End> Server::next_line(std::string_view& line) {
  for (;;) {
    switch (reader_.next(line)) {
      case rpc::LineReader::Event::line:
        return std::nullopt;
      case rpc::LineReader::Event::too_long:
        answer(
            nullptr,
            ProtocolError{kInvalidRequest,
                          fmt::format("Invalid Request: a line is longer than {} bytes (limits.message_max)",
                                      options_.message_max_bytes)});
        break;
      case rpc::LineReader::Event::eof:
        return End::eof;
      case rpc::LineReader::Event::stopped:
        return writer_.peer_gone() ? End::peer_gone : End::stopped;
    }
  }
}

void Server::end_with(End end, std::exception_ptr problem) {
  const std::lock_guard lock(end_mutex_);
  end_ = end;
  problem_ = std::move(problem);
  ended_.notify_all();
}

void Server::stop() noexcept {
  stop_.set();
  writer_.abandon();
}

Server::End Server::shut_down(End end) {
  // Whoever pipes a few requests into us and closes expects the answers of those that take no time.
  if (end == End::eof) in_flight_.wait_until_empty(options_.finish_grace);
  in_flight_.stop_all();
  if (!in_flight_.wait_until_empty(options_.stop_grace))
    log::warning("{} calls did not stop in time", in_flight_.size());
  writer_.abandon();
  return end;
}

void Server::handle(std::string_view line) {
  rpc::Message message = rpc::parse_message(line, options_.json_depth);
  if (auto* request = std::get_if<rpc::Request>(&message))
    handle_request(std::move(*request));
  else if (const auto* notification = std::get_if<rpc::Notification>(&message))
    handle_notification(*notification);
  else if (const auto* invalid = std::get_if<rpc::Invalid>(&message))
    answer(invalid->id, ProtocolError{invalid->code, invalid->what});
  // A response is ignored: this server asks its client nothing.
}

void Server::handle_notification(const rpc::Notification& notification) {
  if (notification.method != "notifications/cancelled") return;
  const json id = member(notification.params, "requestId");
  if (const std::shared_ptr<Call> call = in_flight_.find(id)) call->cancel();
}

void Server::handle_request(rpc::Request request) {
  log::debug("request {} {}", request.id.dump(-1, ' ', true, json::error_handler_t::replace), request.method);
  const json id = request.id;
  if (in_flight_.contains(id))
    return answer(id, ProtocolError{kInvalidRequest, "Invalid Request: this id is still in use"});
  auto envelope = open_envelope(request);
  if (auto* error = std::get_if<ProtocolError>(&envelope)) return answer(id, std::move(*error));
  if (auto reply = dispatch(request, std::get<Envelope>(envelope))) answer(id, std::move(*reply));
}

std::variant<Server::Envelope, ProtocolError> Server::open_envelope(const rpc::Request& request) const {
  if (!request.params.is_null() && !request.params.is_object())
    return ProtocolError{kInvalidParams, "Invalid params: must be an object"};
  json meta = member(request.params, "_meta");
  if (meta.is_null()) meta = json::object();
  if (!meta.is_object()) return ProtocolError{kInvalidParams, "Invalid params: _meta must be an object"};
  if (has_envelope(meta)) {
    if (auto problem = envelope_problem(meta)) return std::move(*problem);
    std::string client = client_name(meta);
    return Envelope{std::move(meta), Revision::v2026_07_28, std::move(client)};
  }
  const bool needs_no_handshake = request.method == "initialize" || request.method == "ping";
  if (!legacy_ && !needs_no_handshake) return missing_envelope();
  return Envelope{std::move(meta), legacy_.value_or(Revision::v2025_11_25), legacy_client_};
}

std::optional<Server::Answer> Server::dispatch(rpc::Request& request, const Envelope& envelope) {
  const std::string& method = request.method;
  if (method == "tools/call") return call_tool(request, envelope);
  if (method == "tools/list") return list_tools(request.params, envelope);
  if (is_modern(envelope.revision)) {
    if (method == "server/discover")
      return finish_result(envelope.revision, discover_result(options_.instructions), Cacheable::yes,
                           options_.info);
    return method_not_found(method);
  }
  if (method == "initialize") return initialize(request.params);
  if (method == "ping") return ordered_json::object();
  return method_not_found(method);
}

Server::Answer Server::initialize(const json& params) {
  const json requested = member(params, "protocolVersion");
  if (!requested.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: protocolVersion is missing or not a string"};
  legacy_ = negotiate(requested.get_ref<const std::string&>());
  legacy_client_ = text_of(member(member(params, "clientInfo"), "name"));
  return initialize_result(*legacy_, options_.info, options_.instructions);
}

Server::Answer Server::list_tools(const json& params, const Envelope& envelope) const {
  // All tools come in one page, so no cursor was ever handed out.
  if (!member(params, "cursor").is_null())
    return ProtocolError{kInvalidParams, "Invalid params: unknown cursor"};
  ordered_json tools = ordered_json::array();
  for (ordered_json& tool : tools_.list()) tools.push_back(tool_for(envelope.revision, std::move(tool)));
  return finish_result(envelope.revision, {{"tools", std::move(tools)}}, Cacheable::yes, options_.info);
}

std::optional<Server::Answer> Server::call_tool(rpc::Request& request, const Envelope& envelope) {
  const json name_field = member(request.params, "name");
  if (!name_field.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: name is missing or not a string"};
  std::string name = name_field.get<std::string>();
  if (!tools_.contains(name))
    return ProtocolError{kInvalidParams,
                         fmt::format("Unknown tool: {}", schema::valid_utf8(name.substr(0, 200)))};
  if (in_flight_.size() >= options_.pending_requests) {
    const Error error =
        Error(Errc::limit_exceeded, fmt::format("{} calls are waiting already", options_.pending_requests))
            .hint("wait for some of them, or raise limits.pending_requests");
    return finished_call(envelope.revision, tools_.error_result(error));
  }
  const json token = member(envelope.meta, "progressToken");
  const bool usable_token = token.is_string() || token.is_number_integer();
  auto call = std::make_shared<Call>(
      Call::Origin{request.id, usable_token ? token : json(), envelope.revision, envelope.client_name},
      writer_, options_.progress_interval);
  json arguments = request.params.contains("arguments") ? std::move(request.params["arguments"]) : json();
  start_call(std::move(call), std::move(name), std::move(arguments));
  return std::nullopt;
}

void Server::start_call(std::shared_ptr<Call> call, std::string name, json arguments) {
  in_flight_.add(call);
  own_call_ = [this, call = std::move(call), name = std::move(name), arguments = std::move(arguments)] {
    run_call(*call, name, arguments);
  };
}

void Server::run_call(Call& call, const std::string& name, const json& arguments) {
  const Call::Origin& origin = call.origin();
  if (call.is_cancelled()) return finish_call(call, {});
  CallContext::ProgressSink progress;
  if (!origin.progress_token.is_null())
    progress = [&call](std::string_view message) { call.progress(message); };
  CallContext context(call.stop_token(), {origin.client_name, std::string(revision_name(origin.revision))},
                      std::move(progress));
  finish_call(call, tools_.call(name, arguments, context));
}

void Server::finish_call(Call& call, ordered_json result) {
  const Call::Origin& origin = call.origin();
  const bool wanted = call.claim_answer();
  in_flight_.free_id(origin.id);
  if (wanted) answer(origin.id, finished_call(origin.revision, std::move(result)));
  in_flight_.finish();
}

ordered_json Server::finished_call(Revision revision, ordered_json result) const {
  return finish_result(revision, call_result_for(revision, std::move(result)), Cacheable::no, options_.info);
}

void Server::answer(const json& id, Answer reply) {
  if (auto* error = std::get_if<ProtocolError>(&reply))
    send(rpc::make_error(id, error->code, error->message, std::move(error->data)));
  else
    send(rpc::make_result(id, std::move(std::get<ordered_json>(reply))));
}

void Server::send(const ordered_json& message) {
  if (writer_.send(message) == rpc::LineWriter::Outcome::peer_gone) stop();
}

}  // namespace hutch::mcp
