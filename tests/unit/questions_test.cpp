#include "base/sha256.h"
#include "mcp/call_context.h"
#include "mcp/question_budget.h"
#include "mcp/request_states.h"
#include "support.h"

namespace {

using namespace hutch;
using namespace hutch::mcp;
using namespace std::chrono_literals;

const InputRequired kRequired{{"Allow it?", {{"once", "Once"}, {"no", "No"}}}, "sbx_1", "process 7"};
const json kArguments = {{"command", "curl x"}};

struct StatesFixture {
  std::string seal() { return states.seal("run", kArguments, kRequired); }
  std::variant<Resumed, ProtocolError> open(const std::string& state, const std::string& choice = "once") {
    return states.unseal("run", kArguments, state,
                         {{kQuestionKey, {{"action", "accept"}, {"content", {{"choice", choice}}}}}});
  }
  std::string problem(const std::string& state) {
    const auto opened = open(state);
    const auto* error = std::get_if<ProtocolError>(&opened);
    return error ? error->message : "";
  }

  RequestStates::Clock::time_point now{};
  RequestStates states{10min, [this] { return now; }};
};

struct BudgetFixture {
  QuestionBudget::Clock::time_point now{};
  QuestionBudget budget{5, [this] { return now; }};
};

}  // namespace

TEST_SUITE("questions") {
  TEST_CASE("HMAC-SHA256 is that of RFC 4231") {
    CHECK(hmac_sha256_hex("Jefe", "what do ya want for nothing?") ==
          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    CHECK(hmac_sha256_hex("", "") == "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
    CHECK(same_secret("ab", "ab"));
    CHECK_FALSE(same_secret("ab", "ac"));
    CHECK_FALSE(same_secret("ab", "abc"));
  }

  TEST_CASE("foreign text is quoted so that it can neither end the quotes nor draw") {
    CHECK(in_quotes("curl example.org") == R"("curl example.org")");
    CHECK(in_quotes("x\" and yes to all\n\x1b[2J\x7f") == R"("x\" and yes to all\n\u001b[2J\u007f")");
    CHECK(in_quotes("gr\u00fc\u00df \u202e \U0001f600") == R"("gr\u00fc\u00df \u202e \ud83d\ude00")");
    CHECK(in_quotes(std::string("a\xff\0", 3)) == R"("a\ufffd\u0000")");
    CHECK(in_quotes("abcdef", 3) == R"("abc"...)");
    CHECK(in_quotes("a\u00fc", 2) == R"("a\ufffd"...)");
    CHECK(in_quotes("abc", 3) == R"("abc")");
  }

  TEST_CASE_FIXTURE(StatesFixture, "a state brings back what the tool left and what the user chose") {
    const auto opened = open(seal());
    const Resumed& resumed = std::get<Resumed>(opened);
    CHECK(resumed.subject == "sbx_1");
    CHECK(resumed.state == "process 7");
    CHECK(resumed.decision.kind == Decision::Kind::chosen);
    CHECK(resumed.decision.choice == "once");
  }

  TEST_CASE_FIXTURE(StatesFixture, "what was not among the options is no choice") {
    CHECK(std::get<Resumed>(open(seal(), "sandbox")).decision.kind == Decision::Kind::none);
  }

  TEST_CASE_FIXTURE(StatesFixture, "a state expires to the millisecond") {
    const std::string first = seal(), second = seal();
    now += 10min - 1ms;
    CHECK(problem(first).empty());
    now += 1ms;
    CHECK_CONTAINS(problem(second), "has expired");
    CHECK_CONTAINS(problem(first), "has expired");
  }

  TEST_CASE_FIXTURE(StatesFixture, "a used state stays used while others expire") {
    const std::string state = seal();
    CHECK(problem(state).empty());
    now += 9min;
    CHECK(problem(seal()).empty());
    CHECK_CONTAINS(problem(state), "was used already");
  }

  TEST_CASE_FIXTURE(StatesFixture, "a state of another process is none of ours") {
    StatesFixture other;
    CHECK_CONTAINS(problem(other.seal()), "not given out by this server process");
  }

  TEST_CASE_FIXTURE(StatesFixture, "no arguments and empty ones are the same call") {
    const std::string state = states.seal("run", nullptr, kRequired);
    CHECK(std::holds_alternative<Resumed>(states.unseal("run", json::object(), state, json::object())));
  }

  TEST_CASE_FIXTURE(StatesFixture, "a state that is no UTF-8 breaks nothing") {
    InputRequired required = kRequired;
    required.state = "\xff";
    const auto opened =
        states.unseal("run", kArguments, states.seal("run", kArguments, required), json::object());
    CHECK(std::get<Resumed>(opened).state == "\ufffd");
  }

  TEST_CASE_FIXTURE(BudgetFixture, "five questions an hour about one thing, and as many about another") {
    for (int i = 0; i < 5; ++i) {
      CHECK(budget.take("a"));
      now += 10min;
    }
    CHECK_FALSE(budget.take("a"));
    CHECK(budget.take("b"));
    now += 10min - 1ms;
    CHECK_FALSE(budget.take("a"));
    now += 1ms;  // the first one is an hour old
    CHECK(budget.take("a"));
    CHECK_FALSE(budget.take("a"));
  }

  TEST_CASE("a call asks once, and not at all when it was resumed or cannot be asked") {
    int asked = 0;
    Asking asking{QuestionStyle::waiting,
                  [&](const Question&, std::chrono::milliseconds, const std::stop_token&) {
                    ++asked;
                    return Decision{Decision::Kind::chosen, "once"};
                  }};
    CallContext context({}, {}, {}, asking);
    CHECK(context.question_style() == QuestionStyle::waiting);
    CHECK(context.ask(kRequired.question, 1s).choice == "once");
    CHECK(context.question_style() == QuestionStyle::none);
    CHECK(context.ask(kRequired.question, 1s).kind == Decision::Kind::none);
    asking.resumed = Resumed{};
    CHECK(CallContext({}, {}, {}, asking).ask(kRequired.question, 1s).kind == Decision::Kind::none);
    asking = {QuestionStyle::round_trip};
    CHECK(CallContext({}, {}, {}, asking).ask(kRequired.question, 1s).kind == Decision::Kind::none);
    CHECK(CallContext().ask(kRequired.question, 1s).kind == Decision::Kind::none);
    CHECK(asked == 1);
  }
}
