#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "verne/text/tokenizer.hpp"

namespace verne {

/// One line {"ids", "with_special", "decoded"} for each line {"text"} of `jsonl` (BOM, CRLF and blank lines
/// accepted): `ids` without the post-processor but with added tokens recognised, `with_special` with it,
/// `decoded` the text of `ids`. UserError names `origin` and the line, counted from `first_line`.
std::string tokenize_lines(const Tokenizer& tokenizer, std::string_view jsonl, const std::string& origin,
                           std::int64_t first_line = 1);

}  // namespace verne
