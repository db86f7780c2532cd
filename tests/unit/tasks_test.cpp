#include "mcp/tasks.h"

#include <set>

#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::mcp;
using namespace std::chrono_literals;

constexpr Revision kOld = Revision::v2025_11_25;
constexpr Revision kNew = Revision::v2026_07_28;

ordered_json result(const std::string& text) {
  return {{"content", ordered_json::array({{{"type", "text"}, {"text", text}}})}, {"isError", false}};
}

struct TasksFixture {
  explicit TasksFixture(TaskLimits limits = {}) : tasks(limits, [this] { return now; }) {}

  std::string add(std::optional<std::chrono::milliseconds> ttl = {}) { return tasks.add(kNew, ttl).id; }
  std::string ended(const std::string& text = "x") {
    std::string id = add();
    now += 1ms;
    tasks.finish(id, result(text));
    return id;
  }
  bool known(const std::string& id) { return tasks.find(kNew, id).has_value(); }
  void wait(const std::string& id, const void* key) {
    CHECK(tasks.when_ended(kNew, id, key, [this](const Task& task) { told.push_back(task.id); }));
  }

  Tasks::Clock::time_point now{};
  Tasks tasks;
  std::vector<std::string> told;
};

struct SmallFixture : TasksFixture {
  SmallFixture() : TasksFixture({.kept = 2, .kept_bytes = 10'000}) {}
};

}  // namespace

TEST_SUITE("tasks") {
  TEST_CASE_FIXTURE(TasksFixture, "ids are 128 bits and never the same") {
    std::set<std::string> ids;
    for (int i = 0; i < 1000; ++i) ids.insert(add());
    CHECK(ids.size() == 1000);
    CHECK(ids.begin()->size() == 32);
  }

  TEST_CASE_FIXTURE(TasksFixture, "the time of a task counts from its end") {
    const std::string id = add(1min);
    now += 1h;
    CHECK(tasks.find(kNew, id)->ttl == 1h + 1min);
    tasks.finish(id, result("x"));
    now += 59s;
    REQUIRE(known(id));
    CHECK(tasks.find(kNew, id)->ttl == 1h + 1min);
    now += 1s;
    CHECK_FALSE(known(id));
    CHECK_FALSE(tasks.cancel(kNew, id));
    CHECK_FALSE(tasks.when_ended(kNew, id, this, [](const Task&) {}));
  }

  TEST_CASE_FIXTURE(TasksFixture, "a wish is kept up to a day, and ten minutes are the default") {
    CHECK(tasks.add(kNew, {}).ttl == 10min);
    CHECK(tasks.add(kNew, 0ms).ttl == 0ms);
    CHECK(tasks.add(kNew, 24h + 1ms).ttl == 24h);
    CHECK(tasks.add(kNew, std::chrono::milliseconds::max()).ttl == 24h);
  }

  TEST_CASE_FIXTURE(SmallFixture,
                    "beyond the number that is kept the oldest goes, first one that was delivered") {
    const std::string running = add(), a = ended(), b = ended();
    tasks.delivered(b);
    const std::string c = ended();
    CHECK(known(a));
    CHECK_FALSE(known(b));
    const std::string d = ended();
    CHECK_FALSE(known(a));
    CHECK(known(c));
    CHECK(known(d));
    CHECK(known(running));
  }

  TEST_CASE_FIXTURE(SmallFixture, "beyond the bytes that are kept older ones go, but never the newest") {
    const std::string a = ended(), b = ended(std::string(20'000, 'x'));
    CHECK_FALSE(known(a));
    CHECK(known(b));
    const std::string c = ended();
    CHECK_FALSE(known(b));
    CHECK(known(c));
  }

  TEST_CASE_FIXTURE(TasksFixture, "a cancelled task stays cancelled and keeps what came of the work") {
    const std::string id = add();
    CHECK(tasks.cancel(kNew, id)->worked);
    CHECK_FALSE(tasks.cancel(kNew, id)->worked);
    tasks.note(id, "too late");
    tasks.finish(id, result("stopped"));
    const auto task = tasks.find(kNew, id);
    REQUIRE(task);
    CHECK(task->cancelled);
    CHECK(task->message.empty());
    CHECK(std::get<ordered_json>(*task->outcome)["content"][0]["text"] == "stopped");
  }

  TEST_CASE_FIXTURE(TasksFixture, "an ended task cannot be cancelled, noted on or ended again") {
    const std::string id = ended("first");
    CHECK_FALSE(tasks.cancel(kNew, id)->worked);
    tasks.note(id, "too late");
    tasks.finish(id, result("second"));
    const auto task = tasks.find(kNew, id);
    CHECK_FALSE(task->cancelled);
    CHECK(task->message.empty());
    CHECK(std::get<ordered_json>(*task->outcome)["content"][0]["text"] == "first");
  }

  TEST_CASE_FIXTURE(TasksFixture, "who waits is told once, at the end or at once, unless he gave up") {
    const std::string id = add();
    int first = 0, second = 0, third = 0;
    wait(id, &first);
    wait(id, &second);
    CHECK(tasks.stop_waiting(&first));
    CHECK_FALSE(tasks.stop_waiting(&first));
    CHECK(told.empty());
    tasks.finish(id, result("x"));
    CHECK(told.size() == 1);
    CHECK_FALSE(tasks.stop_waiting(&second));
    wait(id, &third);
    CHECK(told.size() == 2);
    tasks.finish(id, result("x"));
    CHECK(told.size() == 2);
  }

  TEST_CASE_FIXTURE(TasksFixture, "a task belongs to clients of its revision") {
    const std::string id = add();
    CHECK_FALSE(tasks.find(kOld, id));
    CHECK_FALSE(tasks.cancel(kOld, id));
    CHECK_FALSE(tasks.when_ended(kOld, id, this, [](const Task&) {}));
    CHECK(tasks.list(kOld, "")->tasks.empty());
    CHECK(tasks.list(kNew, "")->tasks.size() == 1);
  }

  TEST_CASE_FIXTURE(TasksFixture, "the list goes on where the last page ended, whatever ended in between") {
    std::vector<std::string> ids;
    for (int i = 0; i < 250; ++i) ids.push_back(tasks.add(kNew, 0ms).id);
    auto page = tasks.list(kNew, "");
    REQUIRE(page->tasks.size() == 100);
    CHECK(page->tasks.front().id == ids.front());
    tasks.finish(ids[99], result("x"));
    tasks.finish(ids[100], result("x"));
    page = tasks.list(kNew, page->next);
    CHECK(page->tasks.front().id == ids[101]);
    page = tasks.list(kNew, page->next);
    CHECK(page->tasks.size() == 49);
    CHECK(page->next.empty());
    for (const char* bad : {"x", "251", "-1", " 1", "1x"}) CHECK_FALSE(tasks.list(kNew, bad));
  }
}
