#include "schema/schema_writer.h"

namespace hutch::schema {

namespace {

ordered_json typed(const char* type, std::string_view help) {
  ordered_json schema = {{"type", type}};
  if (!help.empty()) schema["description"] = help;
  return schema;
}

ordered_json with_limits(ordered_json schema, const Rules& rules, const char* min_name,
                         const char* max_name) {
  if (rules.min) schema[min_name] = to_json(*rules.min);
  if (rules.max) schema[max_name] = to_json(*rules.max);
  return schema;
}

}  // namespace

ordered_json SchemaWriter::finish() const {
  ordered_json schema = {{"type", "object"}};
  schema["properties"] = properties_;
  const bool any_required = !required_.empty() && !(top_ && purpose_ == Purpose::result);
  if (any_required) schema["required"] = required_;
  schema["additionalProperties"] = false;
  return schema;
}

ordered_json SchemaWriter::scalar_schema(const bool*, std::string_view help, const Rules&) {
  return typed("boolean", help);
}

ordered_json SchemaWriter::scalar_schema(const int64_t*, std::string_view help, const Rules& rules) {
  return with_limits(typed("integer", help), rules, "minimum", "maximum");
}

ordered_json SchemaWriter::scalar_schema(const double*, std::string_view help, const Rules& rules) {
  return with_limits(typed("number", help), rules, "minimum", "maximum");
}

ordered_json SchemaWriter::scalar_schema(const std::string*, std::string_view help, const Rules& rules) {
  ordered_json schema = with_limits(typed("string", help), rules, "minLength", "maxLength");
  if (!rules.one_of.empty()) schema["enum"] = rules.one_of;
  return schema;
}

ordered_json SchemaWriter::scalar_schema(const Bytes*, std::string_view help, const Rules&) {
  // A size cannot be bounded in JSON Schema as long as it is a text; the reader checks it.
  return typed("string", std::string(help) + (help.empty() ? "" : " ") + "Such as \"512m\".");
}

ordered_json SchemaWriter::container_schema(bool list, ordered_json element, std::string_view help,
                                            const Rules& rules) {
  ordered_json schema = typed(list ? "array" : "object", help);
  schema[list ? "items" : "additionalProperties"] = std::move(element);
  return list ? with_limits(std::move(schema), rules, "minItems", "maxItems")
              : with_limits(std::move(schema), rules, "minProperties", "maxProperties");
}

ordered_json SchemaWriter::with_help(ordered_json schema, std::string_view help) {
  if (help.empty()) return schema;
  ordered_json out = typed("object", help);
  out.update(schema);
  return out;
}

}  // namespace hutch::schema
