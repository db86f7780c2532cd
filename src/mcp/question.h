#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "schema/json.h"

namespace hutch::mcp {

/// What the user of a host is asked (elicitation): a text and a list to choose from. Whatever is in the
/// texts, only printable ASCII and line ends reach the host.
struct Question {
  struct Option {
    std::string value;  // what the tool gets, "once"
    std::string label;  // what the user reads, "Yes, this one time"
  };
  std::string message;
  std::vector<Option> options;
};

/// What came of it. Everything but a choice means no.
struct Decision {
  enum class Kind {
    none,      // no answer, no time left, a host that failed or answered nonsense, a dismissed question
    declined,  // the user said no
    chosen,
  };
  Kind kind = Kind::none;
  std::string choice{};  // the value of an option
};

/// How a tool can put its question.
enum class QuestionStyle {
  none,        // the host cannot ask, or this call has had its question: the answer is no
  waiting,     // CallContext::ask() returns when there is an answer
  round_trip,  // since 2026-07-28: the tool throws InputRequired and is called again with the answer
};

/// Thrown by a tool: the call ends with a question, and the client calls again with the same arguments and
/// the answer (CallContext::resumed()). Work that has begun goes on meanwhile; `state` is to name it.
struct InputRequired {
  Question question;
  std::string subject;  // what the call works on: the id of a sandbox
  std::string state;    // UTF-8, for the tool itself
};

/// What the second call gets: from the same tool and the same arguments, exactly once.
struct Resumed {
  std::string subject, state;
  Decision decision;
};

/// Reads an ElicitResult. Anything but one of `values` is no choice.
Decision decision_of(const json& result, const std::vector<std::string>& values);
std::vector<std::string> values_of(const Question& question);

/// Foreign text inside of a message, such that the user sees where it begins and ends and it cannot draw
/// anything: in quotes, with escapes for all but printable ASCII, cut to so many bytes.
std::string in_quotes(std::string_view text, size_t max_bytes = 200);

/// Only printable ASCII and line ends; all else becomes "?".
std::string printable(std::string_view text);

}  // namespace hutch::mcp
