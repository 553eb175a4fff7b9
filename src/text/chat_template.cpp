#include "verne/text/chat_template.hpp"

#include <algorithm>
#include <utility>

#include "templates.hpp"
#include "verne/base/error.hpp"

namespace verne {
namespace {

struct Name {
  ChatTemplate chat_template;
  std::string_view name;
};
constexpr std::array kNames{Name{ChatTemplate::unresolved, "auto"}, Name{ChatTemplate::qwen3, "qwen3"},
                            Name{ChatTemplate::chatml, "chatml"},   Name{ChatTemplate::llama3, "llama3"},
                            Name{ChatTemplate::mistral, "mistral"}, Name{ChatTemplate::deepseek, "deepseek"},
                            Name{ChatTemplate::alpaca, "alpaca"},   Name{ChatTemplate::simple, "simple"},
                            Name{ChatTemplate::none, "none"}};

struct Family {
  std::string_view model_type;
  ChatTemplate chat_template;
};
constexpr std::array kFamilies{
    Family{"qwen3", ChatTemplate::qwen3},         Family{"qwen3_moe", ChatTemplate::qwen3},
    Family{"qwen2", ChatTemplate::chatml},        Family{"llama", ChatTemplate::llama3},
    Family{"mistral", ChatTemplate::mistral},     Family{"mixtral", ChatTemplate::mistral},
    Family{"deepseek_v3", ChatTemplate::deepseek}};

}  // namespace

ChatTemplate resolve_template(std::string_view name, std::string_view model_type) {
  if (name == "auto") {
    const auto family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                     [&](const Family& entry) { return entry.model_type == model_type; });
    return family == kFamilies.end() ? ChatTemplate::unresolved : family->chat_template;
  }
  for (const Name& entry : kNames)
    if (entry.name == name) return entry.chat_template;
  throw_user_error(
      "the template '{}' is not known; expected auto, qwen3, chatml, llama3, mistral, deepseek, alpaca, "
      "simple or none",
      name);
}

std::string_view template_name(ChatTemplate chat_template) {
  for (const Name& entry : kNames)
    if (entry.chat_template == chat_template) return entry.name;
  throw InternalError("a template without a name");
}

TrainOn parse_train_on(std::string_view name) {
  if (name == "all") return TrainOn::all;
  if (name == "last") return TrainOn::last;
  throw_user_error("train_on is '{}'; expected all or last", name);
}

std::span<const std::string_view> template_tokens(ChatTemplate chat_template) {
  switch (chat_template) {
    case ChatTemplate::qwen3:
      return kQwen3Tokens;
    case ChatTemplate::chatml:
      return kChatmlTokens;
    case ChatTemplate::llama3:
      return kLlama3Tokens;
    case ChatTemplate::mistral:
      return kMistralTokens;
    case ChatTemplate::deepseek:
      return kDeepseekTokens;
    default:
      return {};
  }
}

TokenId template_token(ChatTemplate chat_template, const Tokenizer& tokenizer, std::string_view token) {
  const auto id = tokenizer.id_of(token);
  require_user(id.has_value(),
               "the tokenizer has no token '{}', which the template '{}' needs; choose another "
               "prepare.template, or add the "
               "token with prepare.special_tokens",
               token, template_name(chat_template));
  return *id;
}

TokenId end_token(ChatTemplate chat_template, const Tokenizer& tokenizer,
                  std::optional<TokenId> model_eos_id) {
  const auto tokens = template_tokens(chat_template);
  if (!tokens.empty()) {
    const bool chatml = chat_template == ChatTemplate::qwen3 || chat_template == ChatTemplate::chatml;
    return template_token(chat_template, tokenizer, chatml ? tokens[1] : tokens.back());
  }
  if (tokenizer.eos_id()) return *tokenizer.eos_id();
  require_user(
      model_eos_id.has_value(),
      "no token ends a document: the template '{}' has none, tokenizer_config.json names no eos_token that "
      "the "
      "tokenizer has, and the model's config has no eos_token_id; add one of them or choose another template",
      template_name(chat_template));
  return *model_eos_id;
}

std::vector<TokenId> control_tokens(ChatTemplate chat_template, const Tokenizer& tokenizer,
                                    std::optional<TokenId> model_eos_id) {
  std::vector<TokenId> ids;
  for (const std::string_view token : template_tokens(chat_template))
    ids.push_back(template_token(chat_template, tokenizer, token));
  ids.push_back(end_token(chat_template, tokenizer, model_eos_id));
  for (const auto& id : {tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()})
    if (id) ids.push_back(*id);
  if (template_tokens(chat_template).empty())
    ids.insert(ids.end(), tokenizer.prefix_ids().begin(), tokenizer.prefix_ids().end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace verne
