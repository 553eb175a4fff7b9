#pragma once
// What the source files of the chat templates share.
#include <array>
#include <span>
#include <string_view>

#include "verne/text/chat_template.hpp"

namespace verne {

inline constexpr std::string_view kAlpacaWithInput =
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response "
    "that appropriately completes the request.\n\n### Instruction:\n";
inline constexpr std::string_view kAlpacaWithoutInput =
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n";
inline constexpr std::string_view kAlpacaInput = "\n\n### Input:\n";
inline constexpr std::string_view kAlpacaResponse = "\n\n### Response:";

/// The control tokens that a template emits.
inline constexpr std::array<std::string_view, 4> kQwen3Tokens{"<|im_start|>", "<|im_end|>", "<think>",
                                                              "</think>"};
inline constexpr std::array<std::string_view, 2> kChatmlTokens{"<|im_start|>", "<|im_end|>"};
inline constexpr std::array<std::string_view, 4> kLlama3Tokens{"<|begin_of_text|>", "<|start_header_id|>",
                                                               "<|end_header_id|>", "<|eot_id|>"};
inline constexpr std::array<std::string_view, 4> kMistralTokens{"<s>", "[INST]", "[/INST]", "</s>"};
// With the full-width bar U+FF5C and U+2581.
inline constexpr std::array<std::string_view, 4> kDeepseekTokens{
    "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>", "<\uFF5CUser\uFF5C>", "<\uFF5CAssistant\uFF5C>",
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>"};

/// Empty for alpaca, simple and none, which are plain text.
std::span<const std::string_view> template_tokens(ChatTemplate chat_template);
/// A token that the template needs; UserError where the tokenizer lacks it.
TokenId template_token(ChatTemplate chat_template, const Tokenizer& tokenizer, std::string_view token);

}  // namespace verne
