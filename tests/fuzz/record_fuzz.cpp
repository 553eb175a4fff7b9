#include <cstddef>
#include <cstdint>
#include <string_view>

#include "verne/base/error.hpp"
#include "verne/data/record.hpp"

// Any line is a record or a UserError; the last byte chooses whether other keys are given.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  const bool named = size > 0 && (data[size - 1] & 1) != 0;
  verne::RecordOptions options;
  if (named) options = {.input_key = "question", .output_key = "answer", .vocab_size = 100};
  verne::RecordParser parser(options);
  try {
    const verne::Record record = parser.parse(line);
    if (const auto* tokens = std::get_if<verne::TokenizedRecord>(&record.content)) {
      if (tokens->tokens.size() != tokens->loss_mask.size()) __builtin_trap();
    }
  } catch (const verne::UserError&) {
  }
  try {
    parser.parse_time(line, "time");
  } catch (const verne::UserError&) {
  }
  return 0;
}
