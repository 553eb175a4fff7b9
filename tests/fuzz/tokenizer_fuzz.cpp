// A tokenizer.json of any bytes is either refused by a UserError or gives a tokenizer that encodes and
// decodes any text. The input is a tokenizer.json, and after the first zero byte the text to encode.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "verne/base/error.hpp"
#include "verne/text/chat_template.hpp"
#include "verne/text/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = input.find('\0');
  const std::string json(input.substr(0, cut));
  const std::string_view text =
      cut == std::string_view::npos ? "It's 12 <|im_start|>\xC3\xA9\n" : input.substr(cut + 1);
  try {
    const verne::Tokenizer tokenizer = verne::Tokenizer::from_json(json, R"({"eos_token": "</s>"})", "fuzz");
    std::vector<verne::TokenId> ids = tokenizer.encode(text.substr(0, 4096));
    tokenizer.decode(tokenizer.with_special(ids));
    ids.assign({0, 1, 2, 0xFFFFFFFFu, static_cast<verne::TokenId>(size)});
    tokenizer.decode(ids);
    verne::Renderer renderer(tokenizer, {.chat_template = verne::ChatTemplate::simple});
    renderer.render(verne::PromptCompletion{.prompt = "a", .completion = "b"});
  } catch (const verne::UserError&) {
  }
  return 0;
}
