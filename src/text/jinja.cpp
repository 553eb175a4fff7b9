#include <fmt/format.h>

#include "templates.hpp"
#include "verne/base/error.hpp"
#include "verne/text/chat_template.hpp"

namespace verne {
namespace {

/// `text` as a Jinja string literal.
std::string quote(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\n') {
      quoted += "\\n";
    } else {
      if (c == '\'' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string quote_tokens(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::string text;
  for (const TokenId id : ids) text += tokenizer.token_of(id).value_or("");
  return quote(text);
}

constexpr std::string_view kChatml = R"({%- for m in messages -%}
{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%})";

// An answer after the last question shows what it thinks, earlier ones do not; the last message always has
// the block.
constexpr std::string_view kQwen3 = R"({%- set ns = namespace(query=messages | length - 1) -%}
{%- for m in messages -%}
{%- if m['role'] == 'user' and not (m['content'].startswith('<tool_response>') and m['content'].endswith('</tool_response>')) -%}
{%- set ns.query = loop.index0 -%}
{%- endif -%}
{%- endfor -%}
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
{%- set answer = m['content'] -%}
{%- set thought = '' -%}
{%- if m['reasoning_content'] is string -%}
{%- set thought = m['reasoning_content'] -%}
{%- elif '</think>' in answer -%}
{%- set thought = answer.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') -%}
{%- set answer = answer.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{%- if loop.index0 > ns.query and (loop.last or thought) -%}
{%- set answer = '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + answer.lstrip('\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\n' + answer + '<|im_end|>\n' -}}
{%- else -%}
{{- '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\n\n</think>\n\n' -}}
{%- endif -%}
{%- endif -%})";

constexpr std::string_view kLlama3 = R"({{- '<|begin_of_text|>' -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + (m['content'] | trim) + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
{%- endif -%})";

// {0} to {3}: the four control tokens.
constexpr std::string_view kDeepseek = R"({{{{- {0} -}}}}
{{%- for m in messages -%}}
{{%- if m['role'] == 'user' -%}}
{{{{- {1} + m['content'] -}}}}
{{%- elif m['role'] == 'assistant' -%}}
{{{{- {2} + m['content'] + {3} -}}}}
{{%- else -%}}
{{{{- m['content'] -}}}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}
{{{{- {2} -}}}}
{{%- endif -%}})";

// {0}: what stands before a piece of text that does not begin with a blank.
constexpr std::string_view kMistral = R"({{%- set ns = namespace(system='', last=-1) -%}}
{{%- for m in messages -%}}
{{%- if m['role'] == 'system' -%}}
{{%- set ns.system = m['content'] + '\n\n' -%}}
{{%- elif m['role'] == 'user' -%}}
{{%- set ns.last = loop.index0 -%}}
{{%- endif -%}}
{{%- endfor -%}}
{{{{- '<s>' -}}}}
{{%- for m in messages -%}}
{{%- if m['role'] == 'user' -%}}
{{%- set text = (ns.system if loop.index0 == ns.last else '') + m['content'] -%}}
{{{{- '[INST]' + ({0} if text and text[0] not in ' \u2581' else '') + text + '[/INST]' -}}}}
{{%- elif m['role'] == 'assistant' -%}}
{{%- set text = m['content'] | trim -%}}
{{{{- ({0} if text and text[0] not in ' \u2581' else '') + text + '</s>' -}}}}
{{%- endif -%}}
{{%- endfor -%}})";

// One question and one answer. {0}: what the post-processor puts first, {1} and {2}: around the question,
// {3}: end token.
constexpr std::string_view kPlain = R"({{%- set ns = namespace(system='') -%}}
{{{{- {0} -}}}}
{{%- for m in messages -%}}
{{%- if m['role'] == 'system' -%}}
{{%- set ns.system = m['content'] + ('\n\n' if m['content'] else '') -%}}
{{%- elif m['role'] == 'user' -%}}
{{%- set text = {1} + ns.system + m['content'] + {2} -%}}
{{{{- ({4} if text and text[0] not in ' \u2581' else '') + text -}}}}
{{%- else -%}}
{{{{- m['content'] + {3} -}}}}
{{%- endif -%}}
{{%- endfor -%}})";

/// The blank that a template must write before a text after a control token, so that the text comes out as if
/// it stood alone.
std::string_view lone_text_blank(const Tokenizer& tokenizer, TokenId control_id) {
  const std::string_view control = tokenizer.token_of(control_id).value_or("");
  std::vector<TokenId> apart{control_id};
  tokenizer.encode("x", apart);
  return tokenizer.encode(std::string(control) + "x") != apart &&
                 tokenizer.encode(std::string(control) + " x") == apart
             ? "' '"
             : "''";
}

}  // namespace

std::string jinja_source(ChatTemplate chat_template, const Tokenizer& tokenizer,
                         std::optional<TokenId> model_eos_id) {
  require(chat_template != ChatTemplate::unresolved, "a template is needed to export one");
  for (const std::string_view token : template_tokens(chat_template))
    template_token(chat_template, tokenizer, token);
  const auto plain = [&](std::string_view before, std::string_view after) {
    const TokenId end = end_token(chat_template, tokenizer, model_eos_id);
    const auto prefix = tokenizer.prefix_ids();
    return fmt::format(fmt::runtime(kPlain), quote_tokens(tokenizer, prefix), quote(before), quote(after),
                       quote_tokens(tokenizer, std::span(&end, 1)),
                       prefix.empty() ? "''" : lone_text_blank(tokenizer, prefix.back()));
  };
  switch (chat_template) {
    case ChatTemplate::qwen3:
      return std::string(kQwen3);
    case ChatTemplate::chatml:
      return std::string(kChatml);
    case ChatTemplate::llama3:
      return std::string(kLlama3);
    case ChatTemplate::mistral:
      return fmt::format(
          fmt::runtime(kMistral),
          lone_text_blank(tokenizer, template_token(chat_template, tokenizer, kMistralTokens[1])));
    case ChatTemplate::deepseek:
      return fmt::format(fmt::runtime(kDeepseek), quote(kDeepseekTokens[0]), quote(kDeepseekTokens[1]),
                         quote(kDeepseekTokens[2]), quote(kDeepseekTokens[3]));
    case ChatTemplate::alpaca:
      return plain(kAlpacaWithoutInput, kAlpacaResponse);
    case ChatTemplate::simple:
      return plain("", "\n");
    default:
      return plain("", "");
  }
}

}  // namespace verne
