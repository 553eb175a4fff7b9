#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "verne/text/tokenizer.hpp"

namespace verne {

/// How a record becomes one text. `unresolved` is `auto` of a model family without a template of its own:
/// rendering anything but plain text with it is a UserError that asks for one.
enum class ChatTemplate { unresolved, qwen3, chatml, llama3, mistral, deepseek, alpaca, simple, none };

/// Which assistant turns of a conversation are trained.
enum class TrainOn { all, last };

/// `name` is a value of prepare.template; `auto` is resolved by the model's `model_type` (may be empty).
/// UserError on an unknown name.
ChatTemplate resolve_template(std::string_view name, std::string_view model_type);
/// The name that resolve_template takes; "auto" for unresolved.
std::string_view template_name(ChatTemplate chat_template);
TrainOn parse_train_on(std::string_view name);

struct Message {
  std::string
      role;  ///< system, user or assistant, or one of their usual synonyms, in any case (human, gpt, ...)
  std::string content;
  std::optional<std::string> reasoning_content =
      std::nullopt;  ///< of an assistant's turn: what it thinks before it answers
};
/// {"messages": [...]}, {"conversations": [...]}
struct Conversation {
  std::vector<Message> messages;
};
/// {"prompt", "completion"}, {"input", "output"}
struct PromptCompletion {
  std::string prompt, completion;
  std::optional<std::string> system = std::nullopt;
};
/// {"instruction", "input", "output"}; `input` may be empty
struct Instruction {
  std::string instruction, input, output;
  std::optional<std::string> system = std::nullopt;
};
/// {"text"}
struct PlainText {
  std::string text;
};
using TextRecord = std::variant<Conversation, PromptCompletion, Instruction, PlainText>;

/// One tokenized document. loss_mask[i] says whether token i counts as a target (never shifted); entry 0 is
/// always 0.
struct Document {
  std::vector<TokenId> tokens;
  std::vector<std::uint8_t> loss_mask;
};
struct Rendered {
  std::vector<Document>
      documents;  ///< one, or one for each trained assistant turn where the template asks for that
  std::int64_t control_spellings = 0;  ///< control tokens spelled in the record, kept as plain text
};

struct RenderOptions {
  ChatTemplate chat_template = ChatTemplate::unresolved;
  TrainOn train_on = TrainOn::all;
  /// From the model's config: the end token where neither template nor tokenizer_config.json names one.
  std::optional<TokenId> model_eos_id = std::nullopt;
};

/// Turns records into documents. Not thread-safe; make one a thread. Errors in a record are UserErrors that
/// do not know the record's place: the caller adds it.
class Renderer {
 public:
  Renderer(const Tokenizer& tokenizer, const RenderOptions& options);
  ~Renderer();
  Renderer(Renderer&&) noexcept;
  Renderer& operator=(Renderer&&) noexcept;

  Rendered render(const TextRecord& record);

  /// The document up to where generation would begin: the conversation (its last message is not an
  /// assistant's) with the generation prompt; mask all zero.
  Document render_prompt(const Conversation& conversation);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The token that ends an answer: the template's, else the tokenizer's EOS, else `model_eos_id`; UserError
/// where there is none.
TokenId end_token(ChatTemplate chat_template, const Tokenizer& tokenizer,
                  std::optional<TokenId> model_eos_id = std::nullopt);

/// The tokens that the template emits, with the tokenizer's BOS, EOS and padding: sorted, each once.
/// UserError where the tokenizer lacks one that the template needs.
std::vector<TokenId> control_tokens(ChatTemplate chat_template, const Tokenizer& tokenizer,
                                    std::optional<TokenId> model_eos_id = std::nullopt);

/// The Jinja text for an exported tokenizer_config.json: a server that applies it (transformers'
/// apply_chat_template, no further special tokens) gets the very ids that were trained on. Not for
/// `unresolved`.
std::string jinja_source(ChatTemplate chat_template, const Tokenizer& tokenizer,
                         std::optional<TokenId> model_eos_id = std::nullopt);

}  // namespace verne
