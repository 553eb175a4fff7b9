#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/chat_template.hpp"

namespace verne {

/// {"tokens", "loss_mask"}: as in a token shard, never shifted; loss_mask[0] is 0.
struct TokenizedRecord {
  std::vector<TokenId> tokens;
  std::vector<std::uint8_t> loss_mask;
};

struct Record {
  std::variant<TextRecord, TokenizedRecord> content;
  std::string metadata;  ///< a JSON object of all other fields, in their order; "{}" without any
};

struct RecordOptions {
  std::string input_key, output_key;       ///< other names for "input" and "output"; empty: the usual forms
  std::optional<std::int64_t> vocab_size;  ///< token ids of tokenized records are below it
};

/// Parses JSONL lines. A line is one object of one of the forms
///   {input_key, output_key}, where either was given: then no other form but {"tokens"} is looked for
///   {"tokens": [ids], "loss_mask": [0 or 1]}        {"messages": [{"role", "content"}]}
///   {"conversations": [{"from", "value"}]}          {"instruction", "input", "output"}, input optional
///   {"prompt", "completion"}   {"input", "output"}  {"text"}
/// the first that fits in this order; a "system" text goes with all but "tokens" and "text". Everything else
/// is metadata. Not thread-safe; make one a thread. UserErrors name the field, what was found and what was
/// expected; the place of the line is the caller's to add.
class RecordParser {
 public:
  explicit RecordParser(RecordOptions options = {});
  ~RecordParser();
  RecordParser(RecordParser&&) noexcept;
  RecordParser& operator=(RecordParser&&) noexcept;

  Record parse(std::string_view line);

  /// The value of the field by which records are ordered in time: a finite number as it stands, or an ISO
  /// 8601 text.
  struct Time {
    enum class Kind { number, iso8601 } kind = Kind::number;
    long double value = 0;  ///< of a date: seconds since 1970
  };
  Time parse_time(std::string_view line, const std::string& key);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace verne
