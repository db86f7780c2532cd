#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "mcp/in_flight.h"
#include "mcp/open_questions.h"
#include "mcp/request_states.h"
#include "mcp/resources.h"
#include "mcp/tasks.h"
#include "mcp/tool.h"
#include "mcp/versions.h"
#include "mcp/worker_pool.h"
#include "rpc/line_reader.h"
#include "rpc/line_writer.h"
#include "rpc/message.h"
#include "rpc/wakeup.h"

namespace hutch::mcp {

struct ServerOptions {
  ServerInfo info;
  std::string instructions;  // for the model; under 1,500 characters
  size_t message_max_bytes = 16u << 20;
  size_t json_depth = 100;
  size_t pending_requests = 256;
  size_t worker_threads = 64;
  std::chrono::milliseconds progress_interval{1000};
  /// How long a call goes on before a client that knows tasks gets one instead of waiting. What takes a few
  /// seconds is answered without a further question; for the rest the client finds the end at most one poll
  /// (1 s) late, little beside what has passed, and it has a handle long before any host's time limit (60 s).
  std::chrono::milliseconds task_after{5000};
  TaskLimits tasks;
  /// How long a user may think about a question that has ended a call.
  std::chrono::milliseconds question_lifetime = std::chrono::minutes(10);
  /// At the end of the input: how long calls may go on, and then how long they may take to stop.
  std::chrono::milliseconds finish_grace{100};
  std::chrono::milliseconds stop_grace{150};
};

/// The Model Context Protocol on a pair of descriptors, for old and new clients at once. Reads on the thread
/// that calls run(); tools run on worker threads, so that a slow one delays neither `ping` nor a
/// cancellation.
class Server {
 public:
  enum class End { eof, stopped, peer_gone };

  /// The registries and the descriptors stay the caller's and must outlive the server. SIGPIPE must be
  /// ignored.
  Server(const ToolRegistry& tools, const ResourceRegistry& resources, ServerOptions options, int in_fd,
         int out_fd);

  /// Serves until the input ends, stop() is called or the client is gone; then stops the calls in flight and
  /// waits for them, but not longer than the two grace times. The destructor does wait for calls that do not
  /// stop: a program that must end in time leaves with _exit() after run().
  End run();
  /// From any thread, and from a signal handler.
  void stop() noexcept;

 private:
  using Clock = rpc::LineReader::Clock;
  struct Envelope {
    json meta;
    Revision revision;
    std::string client_name;
    bool shows_forms = false;
  };
  /// A call that is to become a task unless it has been answered by then.
  struct DueTask {
    Clock::time_point when;
    std::shared_ptr<Call> call;
  };

  /// Reads and answers until the input ends. A call is run by the thread that read it, which hands the
  /// reading over to another one first: waking a thread up takes longer than many a call.
  void lead();
  std::optional<End> next_line(std::string_view& line);
  void end_with(End end, std::exception_ptr problem = nullptr);

  void handle(std::string_view line);
  void handle_request(rpc::Request request);
  void handle_notification(const rpc::Notification& notification);
  void handle_response(const rpc::Response& response);

  std::variant<Envelope, ProtocolError> open_envelope(const rpc::Request& request) const;
  /// Nothing when the answer comes later.
  std::optional<Answer> dispatch(rpc::Request& request, const Envelope& envelope);
  Answer initialize(const json& params);
  Answer list_tools(const json& params, const Envelope& envelope) const;
  std::optional<Answer> call_tool(rpc::Request& request, const Envelope& envelope);
  Answer too_many_calls(Revision revision, bool tool_error) const;
  /// What answers a request, on a thread of its own.
  using Work = std::function<Answer(CallContext& context)>;
  static Call::Origin origin_of(const rpc::Request& request, const Envelope& envelope);
  std::shared_ptr<Call> begin_call(Call::Origin origin);
  void run_call(Call& call, const Work& work);
  Answer run_tool(const Call& call, const std::string& name, const json& arguments,
                  CallContext& context) const;
  /// The work is over: sends its outcome, or keeps it for the task. Once for every call.
  void finish_call(Call& call, Answer outcome);

  /// What a client brings that calls again with an answer. Nothing when it calls for the first time.
  std::variant<std::monostate, Resumed, ProtocolError> unseal(const std::string& tool, const json& params);
  /// Puts a question and waits for what comes of it, on a thread of the call.
  Decision ask(Call& call, const Question& question, std::chrono::milliseconds timeout,
               const std::stop_token& until);

  std::optional<Answer> resource_method(rpc::Request& request, const Envelope& envelope);
  Answer list_resources(const std::string& key, ordered_json list, const json& params,
                        Revision revision) const;
  std::optional<Answer> read_resource(rpc::Request& request, const Envelope& envelope);
  Answer run_read(Revision revision, const std::string& uri, CallContext& context) const;
  Answer complete(const json& params, Revision revision) const;

  /// Nothing when the call has been answered.
  std::optional<Task> make_task(Call& call, std::optional<std::chrono::milliseconds> ttl);
  /// Makes tasks of the calls that are due. Returns when the next one is.
  Clock::time_point offer_tasks();
  std::optional<Answer> task_method(const rpc::Request& request, const Envelope& envelope);
  Answer get_task(Revision revision, const std::string& id);
  Answer update_task(Revision revision, const std::string& id, const json& params);
  Answer cancel_task(Revision revision, const std::string& id);
  std::optional<Answer> task_result(const json& request_id, const Envelope& envelope, const std::string& id);
  Answer list_tasks(Revision revision, const json& params);

  void answer(const json& id, Answer answer);
  void send(const ordered_json& message);
  End shut_down(End end);

  const ToolRegistry& tools_;
  const ResourceRegistry& resources_;
  const ServerOptions options_;
  rpc::Wakeup stop_;
  rpc::LineReader reader_;
  rpc::LineWriter writer_;
  InFlight in_flight_;
  Tasks tasks_;
  OpenQuestions questions_;
  RequestStates states_;
  std::atomic<bool> reading_waits_ = false;  // for a call: there is no other thread

  // Belong to the thread that leads.
  std::optional<Revision> legacy_;  // set by `initialize`
  std::string legacy_client_;
  bool legacy_shows_forms_ = false;
  std::function<void()> own_call_;  // which it is to run when the reading goes on
  std::deque<DueTask> due_tasks_;   // soonest first: all wait equally long

  std::mutex end_mutex_;
  std::condition_variable ended_;
  std::optional<End> end_;
  std::exception_ptr problem_;  // that ended the reading
  WorkerPool workers_;          // last: its threads use all of the above
};

}  // namespace hutch::mcp
