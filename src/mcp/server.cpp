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

ProtocolError unknown_task() {
  return {kInvalidParams, "Task not found: the taskId was never given out, or its result is kept no longer"};
}

}  // namespace

Server::Server(const ToolRegistry& tools, const ResourceRegistry& resources, ServerOptions options, int in_fd,
               int out_fd)
    : tools_(tools),
      resources_(resources),
      options_(std::move(options)),
      reader_(in_fd, stop_.fd(), options_.message_max_bytes),
      writer_(out_fd),
      tasks_(options_.tasks),
      states_(options_.question_lifetime),
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
      if (workers_.submit(call)) continue;
      reading_waits_ = true;
      call();
      reading_waits_ = false;
    }
  } catch (...) {
    end_with(End::eof, std::current_exception());
  }
}

/// Nothing when `line` is one.
std::optional<Server::End> Server::next_line(std::string_view& line) {
  for (;;) {
    switch (reader_.next(line, offer_tasks())) {
      case rpc::LineReader::Event::line:
        return std::nullopt;
      case rpc::LineReader::Event::too_long:
        answer(
            nullptr,
            ProtocolError{kInvalidRequest,
                          fmt::format("Invalid Request: a line is longer than {} bytes (limits.message_max)",
                                      options_.message_max_bytes)});
        break;
      case rpc::LineReader::Event::timeout:
        break;  // a task is due
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
  questions_.close();
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
  else
    handle_response(std::get<rpc::Response>(message));
}

void Server::handle_response(const rpc::Response& response) {
  questions_.answer(text_of(response.id), member(response.body, "result"));
}

void Server::handle_notification(const rpc::Notification& notification) {
  if (notification.method != "notifications/cancelled") return;
  const json id = member(notification.params, "requestId");
  const std::shared_ptr<Call> call = in_flight_.find(id);
  if (!call) return;
  call->cancel();
  // It waits for a task, which goes on: nobody else ends it.
  if (tasks_.stop_waiting(call.get())) finish_call(*call, {});
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
    const bool forms = shows_forms(Revision::v2026_07_28, declared_capabilities(meta));
    return Envelope{std::move(meta), Revision::v2026_07_28, std::move(client), forms};
  }
  const bool needs_no_handshake = request.method == "initialize" || request.method == "ping";
  if (!legacy_ && !needs_no_handshake) return missing_envelope();
  return Envelope{std::move(meta), legacy_.value_or(Revision::v2025_11_25), legacy_client_,
                  legacy_shows_forms_};
}

std::optional<Answer> Server::dispatch(rpc::Request& request, const Envelope& envelope) {
  const std::string& method = request.method;
  if (method == "tools/call") return call_tool(request, envelope);
  if (method == "tools/list") return list_tools(request.params, envelope);
  if (has_task_method(envelope.revision, method)) return task_method(request, envelope);
  if (!resources_.empty() && (method.starts_with("resources/") || method == "completion/complete"))
    return resource_method(request, envelope);
  if (is_modern(envelope.revision)) {
    if (method == "server/discover")
      return finish_result(envelope.revision, discover_result(options_.instructions, !resources_.empty()),
                           Cacheable::yes, options_.info);
    return method_not_found(method);
  }
  if (method == "initialize") return initialize(request.params);
  if (method == "ping") return ordered_json::object();
  return method_not_found(method);
}

Answer Server::initialize(const json& params) {
  const json requested = member(params, "protocolVersion");
  if (!requested.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: protocolVersion is missing or not a string"};
  legacy_ = negotiate(requested.get_ref<const std::string&>());
  legacy_client_ = text_of(member(member(params, "clientInfo"), "name"));
  legacy_shows_forms_ = shows_forms(*legacy_, member(params, "capabilities"));
  return initialize_result(*legacy_, options_.info, options_.instructions, !resources_.empty());
}

Answer Server::list_tools(const json& params, const Envelope& envelope) const {
  // All tools come in one page, so no cursor was ever handed out.
  if (!member(params, "cursor").is_null())
    return ProtocolError{kInvalidParams, "Invalid params: unknown cursor"};
  ordered_json tools = ordered_json::array();
  for (ordered_json& tool : tools_.list()) tools.push_back(tool_for(envelope.revision, std::move(tool)));
  return finish_result(envelope.revision, {{"tools", std::move(tools)}}, Cacheable::yes, options_.info);
}

std::optional<Answer> Server::call_tool(rpc::Request& request, const Envelope& envelope) {
  const json name_field = member(request.params, "name");
  if (!name_field.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: name is missing or not a string"};
  std::string name = name_field.get<std::string>();
  const ToolInfo* tool = tools_.find(name);
  if (tool == nullptr)
    return ProtocolError{kInvalidParams,
                         fmt::format("Unknown tool: {}", schema::valid_utf8(name.substr(0, 200)))};
  auto task = task_request(envelope.revision, request.params);
  if (auto* problem = std::get_if<ProtocolError>(&task)) return std::move(*problem);
  const auto* wanted = std::get_if<TaskRequest>(&task);
  if (wanted && !tool->task) return no_task_tool(name);
  const bool offered =
      tool->task && task_style(envelope.revision) == TaskStyle::offered && declares_tasks(envelope.meta);
  if (in_flight_.size() >= options_.pending_requests) return too_many_calls(envelope.revision, !wanted);

  auto resumed = is_modern(envelope.revision) ? unseal(name, request.params) : std::monostate();
  if (auto* problem = std::get_if<ProtocolError>(&resumed)) return std::move(*problem);

  Call::Origin origin = origin_of(request, envelope);
  origin.may_be_task = wanted || offered;
  origin.questions = question_style(envelope.revision, envelope.shows_forms, offered);
  if (auto* state = std::get_if<Resumed>(&resumed)) origin.resumed = std::move(*state);
  auto call = begin_call(std::move(origin));
  json arguments = request.params.contains("arguments") ? std::move(request.params["arguments"]) : json();
  if (offered) due_tasks_.push_back({Clock::now() + options_.task_after, call});
  std::optional<Answer> created;
  if (wanted) created = task_created(*make_task(*call, wanted->ttl), options_.info);
  own_call_ = [this, call = std::move(call), name = std::move(name), arguments = std::move(arguments)] {
    run_call(*call, [&](CallContext& context) { return run_tool(*call, name, arguments, context); });
  };
  return created;
}

Call::Origin Server::origin_of(const rpc::Request& request, const Envelope& envelope) {
  const json token = member(envelope.meta, "progressToken");
  const bool usable = token.is_string() || token.is_number_integer();
  return {request.id, usable ? token : json(), envelope.revision, envelope.client_name};
}

std::shared_ptr<Call> Server::begin_call(Call::Origin origin) {
  auto call = std::make_shared<Call>(std::move(origin), writer_, options_.progress_interval);
  in_flight_.add(call);
  return call;
}

std::variant<std::monostate, Resumed, ProtocolError> Server::unseal(const std::string& tool,
                                                                    const json& params) {
  const json state = member(params, "requestState"), responses = member(params, "inputResponses");
  if (!state.is_null() && !state.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: requestState must be a string"};
  if (!responses.is_null() && !responses.is_object())
    return ProtocolError{kInvalidParams, "Invalid params: inputResponses must be an object"};
  if (state.is_null()) {
    if (responses.empty()) return std::monostate();
    // To begin anew here would be to do everything twice.
    return ProtocolError{kInvalidParams,
                         "Invalid params: inputResponses without the requestState they belong to"};
  }
  static const json kNoArguments;
  const auto arguments = params.find("arguments");
  auto unsealed =
      states_.unseal(tool, arguments == params.end() ? kNoArguments : *arguments,
                     state.get_ref<const std::string&>(), responses.is_null() ? json::object() : responses);
  if (auto* problem = std::get_if<ProtocolError>(&unsealed)) return std::move(*problem);
  return std::move(std::get<Resumed>(unsealed));
}

Answer Server::too_many_calls(Revision revision, bool tool_error) const {
  const Error error =
      Error(Errc::limit_exceeded, fmt::format("{} calls are waiting already", options_.pending_requests))
          .hint("wait for some of them, or raise limits.pending_requests");
  if (!tool_error) return ProtocolError{rpc::kInternalError, error_text(error)};
  return finished_call(revision, tools_.error_result(error), options_.info);
}

void Server::run_call(Call& call, const Work& work) {
  const Call::Origin& origin = call.origin();
  if (call.is_cancelled())
    return finish_call(call, ProtocolError{kInvalidRequest, "The task was cancelled before it began"});
  CallContext::ProgressSink progress;
  if (!origin.progress_token.is_null() || origin.may_be_task)
    progress = [this, &call](std::string_view message) {
      const std::string task = call.progress(shortened(message));
      if (!task.empty()) tasks_.note(task, shortened(message));
    };
  Asking asking{origin.questions,
                [this, &call](const Question& question, std::chrono::milliseconds timeout,
                              const std::stop_token& until) { return ask(call, question, timeout, until); },
                origin.resumed};
  CallContext context(call.stop_token(),
                      {origin.client_name, std::string(revision_name(origin.revision)), origin.may_be_task},
                      std::move(progress), std::move(asking));
  finish_call(call, work(context));
}

Answer Server::run_tool(const Call& call, const std::string& name, const json& arguments,
                        CallContext& context) const {
  try {
    return tools_.call(name, arguments, context);
  } catch (const ProtocolError& error) {
    return error;
  } catch (const InputRequired& required) {
    if (context.question_style() == QuestionStyle::round_trip)
      return input_required(call.origin().revision, required.question,
                            states_.seal(name, arguments, required));
    Error error(Errc::internal, "a question was put to a client that cannot be asked");
    return tools_.error_result(error.during("running " + name));
  }
}

Decision Server::ask(Call& call, const Question& question, std::chrono::milliseconds timeout,
                     const std::stop_token& until) {
  const Revision revision = call.origin().revision;
  std::stop_source end;
  const auto stop = [&] { end.request_stop(); };
  const std::stop_callback when_stopped(call.stop_token(), stop), when_needless(until, stop);
  if (reading_waits_ || end.stop_requested()) return {};
  // A modern client is sent no request: it finds the question in the state of the task.
  if (is_modern(revision)) {
    if (const auto task = make_task(call, std::nullopt))
      answer(call.origin().id, task_created(*task, options_.info));
    if (call.task_id().empty()) return {};
  }
  const std::string& task = call.task_id();
  const std::string id = questions_.add(question);
  ordered_json request = elicitation(revision, question, task);
  if (!task.empty()) tasks_.asking(task, id, request);
  if (!is_modern(revision)) send(rpc::make_request(id, std::move(request)));
  const std::optional<Decision> decision = questions_.wait(id, end.get_token(), timeout);
  if (!task.empty()) tasks_.answered(task, id);
  if (!decision && !is_modern(revision))
    send(rpc::make_notification("notifications/cancelled",
                                {{"requestId", id}, {"reason", "The answer is needed no more"}}));
  return decision.value_or(Decision{});
}

void Server::finish_call(Call& call, Answer outcome) {
  const Call::Origin& origin = call.origin();
  const Call::Ending ending = call.end();
  if (ending == Call::Ending::task) {
    tasks_.finish(call.task_id(), std::move(outcome));
    in_flight_.free_task(call.task_id());
  } else {
    in_flight_.free_id(origin.id);
    if (ending == Call::Ending::answer)
      answer(origin.id, finished_call(origin.revision, std::move(outcome), options_.info));
  }
  in_flight_.finish();
}

std::optional<Answer> Server::resource_method(rpc::Request& request, const Envelope& envelope) {
  const Revision revision = envelope.revision;
  if (request.method == "resources/list")
    return list_resources("resources", resources_.list(), request.params, revision);
  if (request.method == "resources/templates/list")
    return list_resources("resourceTemplates", resources_.list_templates(), request.params, revision);
  if (request.method == "resources/read") return read_resource(request, envelope);
  if (request.method == "completion/complete") return complete(request.params, revision);
  return method_not_found(request.method);
}

Answer Server::list_resources(const std::string& key, ordered_json list, const json& params,
                              Revision revision) const {
  if (!member(params, "cursor").is_null())
    return ProtocolError{kInvalidParams, "Invalid params: unknown cursor"};
  ordered_json out;
  out[key] = ordered_json::array();
  for (ordered_json& one : list) out[key].push_back(resource_for(revision, std::move(one)));
  return finish_result(revision, std::move(out), Cacheable::yes, options_.info);
}

std::optional<Answer> Server::read_resource(rpc::Request& request, const Envelope& envelope) {
  const json uri = member(request.params, "uri");
  if (!uri.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: uri is missing or not a string"};
  if (in_flight_.size() >= options_.pending_requests) return too_many_calls(envelope.revision, false);
  own_call_ = [this, call = begin_call(origin_of(request, envelope)), uri = uri.get<std::string>()] {
    run_call(*call, [&](CallContext& context) { return run_read(call->origin().revision, uri, context); });
  };
  return std::nullopt;
}

Answer Server::run_read(Revision revision, const std::string& uri, CallContext& context) const {
  try {
    return read_result(revision, resources_.read(uri, context));
  } catch (const Error& error) {
    if (error.code() == Errc::not_found) return resource_not_found(revision, uri, error_text(error));
    return ProtocolError{error.code() == Errc::invalid_argument ? kInvalidParams : rpc::kInternalError,
                         error_text(error)};
  } catch (const std::exception& failure) {  // the libraries and the standard library
    return ProtocolError{rpc::kInternalError, failure.what()};
  }
}

Answer Server::complete(const json& params, Revision revision) const {
  const json ref = member(params, "ref"), argument = member(params, "argument");
  const json name = member(argument, "name"), value = member(argument, "value");
  if (member(ref, "type") != "ref/resource" || !member(ref, "uri").is_string() || !name.is_string() ||
      !value.is_string())
    return ProtocolError{kInvalidParams,
                         "Invalid params: only templates of resources (ref/resource with a uri) can be "
                         "completed, in an argument with name and value"};
  const auto found = resources_.complete(text_of(member(ref, "uri")), text_of(name), text_of(value));
  if (!found)
    return ProtocolError{kInvalidParams,
                         "Invalid params: no template of a resource has this uri and argument"};
  ordered_json out;
  out["completion"] = {
      {"values", found->values}, {"total", found->total}, {"hasMore", found->total > found->values.size()}};
  return finish_result(revision, std::move(out), Cacheable::no, options_.info);
}

std::optional<Task> Server::make_task(Call& call, std::optional<std::chrono::milliseconds> ttl) {
  std::optional<Task> task;
  call.become_task([&] {
    task = tasks_.add(call.origin().revision, ttl);
    in_flight_.continue_as_task(call.origin().id, task->id);
    return task->id;
  });
  return task;
}

// The thread that waits for input is the timer: it needs no other, and no lock for the list.
Server::Clock::time_point Server::offer_tasks() {
  for (; !due_tasks_.empty(); due_tasks_.pop_front()) {
    const DueTask& due = due_tasks_.front();
    if (!due.call->is_open()) continue;
    if (Clock::now() < due.when) return due.when;
    if (const auto task = make_task(*due.call, std::nullopt))
      answer(due.call->origin().id, task_created(*task, options_.info));
  }
  return Clock::time_point::max();
}

std::optional<Answer> Server::task_method(const rpc::Request& request, const Envelope& envelope) {
  const Revision revision = envelope.revision;
  if (task_style(revision) == TaskStyle::offered && !declares_tasks(envelope.meta))
    return missing_tasks_capability();
  if (request.method == "tasks/list") return list_tasks(revision, request.params);
  const json id_field = member(request.params, "taskId");
  if (!id_field.is_string())
    return ProtocolError{kInvalidParams, "Invalid params: taskId is missing or not a string"};
  const auto& id = id_field.get_ref<const std::string&>();
  if (request.method == "tasks/get") return get_task(revision, id);
  if (request.method == "tasks/update") return update_task(revision, id, request.params);
  if (request.method == "tasks/cancel") return cancel_task(revision, id);
  return task_result(request.id, envelope, id);
}

Answer Server::get_task(Revision revision, const std::string& id) {
  const auto task = tasks_.find(revision, id);
  if (!task) return unknown_task();
  if (task->outcome && task_style(revision) == TaskStyle::offered) tasks_.delivered(id);
  return task_state(*task, options_.info);
}

Answer Server::update_task(Revision revision, const std::string& id, const json& params) {
  const auto task = tasks_.find(revision, id);
  if (!task) return unknown_task();
  const json responses = member(params, "inputResponses");
  if (!responses.is_object())
    return ProtocolError{kInvalidParams, "Invalid params: inputResponses is missing or not an object"};
  // Responses for questions that were never put are to be ignored.
  for (const auto& [question, elicitation] : task->questions)
    if (const auto response = responses.find(question); response != responses.end())
      questions_.answer(question, *response);
  return finish_result(revision, ordered_json::object(), Cacheable::no, options_.info);
}

Answer Server::cancel_task(Revision revision, const std::string& id) {
  const auto cancelled = tasks_.cancel(revision, id);
  if (!cancelled) return unknown_task();
  if (const auto call = in_flight_.find_task(id); call && cancelled->worked) call->cancel();
  return task_cancelled(cancelled->task, cancelled->worked, options_.info);
}

/// Waits for the end of the work without a thread: whoever ends it sends the answer.
std::optional<Answer> Server::task_result(const json& request_id, const Envelope& envelope,
                                          const std::string& id) {
  const Revision revision = envelope.revision;
  const auto task = tasks_.find(revision, id);
  if (!task) return unknown_task();
  if (task->outcome) {
    tasks_.delivered(id);
    return task_payload(*task, options_.info);
  }
  if (in_flight_.size() >= options_.pending_requests) return too_many_calls(revision, false);
  auto call = std::make_shared<Call>(Call::Origin{request_id, {}, revision, envelope.client_name}, writer_,
                                     options_.progress_interval);
  in_flight_.add(call);
  const bool known = tasks_.when_ended(revision, id, call.get(), [this, call](const Task& ended) {
    tasks_.delivered(ended.id);
    // Finished twice, but only revisions that add nothing have this method.
    finish_call(*call, task_payload(ended, options_.info));
  });
  if (!known) finish_call(*call, unknown_task());
  return std::nullopt;
}

Answer Server::list_tasks(Revision revision, const json& params) {
  const json cursor = member(params, "cursor");
  const bool usable =
      cursor.is_null() || (cursor.is_string() && !cursor.get_ref<const std::string&>().empty());
  const auto page = usable ? tasks_.list(revision, text_of(cursor)) : std::nullopt;
  if (!page) return ProtocolError{kInvalidParams, "Invalid params: unknown cursor"};
  ordered_json out;
  out["tasks"] = ordered_json::array();
  for (const Task& task : page->tasks) out["tasks"].push_back(task_entry(task));
  if (!page->next.empty()) out["nextCursor"] = page->next;
  return out;
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
