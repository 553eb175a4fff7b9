#include <algorithm>
#include <utility>

#include "document_builder.hpp"
#include "templates.hpp"
#include "turns.hpp"
#include "verne/base/error.hpp"
#include "verne/text/chat_template.hpp"
#include "verne/text/unicode.hpp"

namespace verne {

struct Renderer::State {
  State(const Tokenizer& used_tokenizer, const RenderOptions& used_options)
      : tokenizer(used_tokenizer), options(used_options) {}

  Tokenizer tokenizer;
  RenderOptions options;
  std::optional<Encoder> chat_encoder, plain_encoder;
  std::vector<TokenId> ids;  ///< of template_tokens
  TokenId end = 0, plain_end = 0;

  /// Sets up what conversations need; the errors are those of the template.
  Encoder& chat() {
    const ChatTemplate chosen = options.chat_template;
    if (chat_encoder) return *chat_encoder;
    require_user(chosen != ChatTemplate::unresolved,
                 "this model family has no chat template of its own: set prepare.template to qwen3, chatml, "
                 "llama3, mistral, "
                 "deepseek, alpaca, simple or none");
    for (const std::string_view token : template_tokens(chosen))
      ids.push_back(template_token(chosen, tokenizer, token));
    end = end_token(chosen, tokenizer, options.model_eos_id);
    chat_encoder.emplace(tokenizer, control_tokens(chosen, tokenizer, options.model_eos_id));
    return *chat_encoder;
  }
  Encoder& plain() {
    if (plain_encoder) return *plain_encoder;
    plain_end = end_token(ChatTemplate::none, tokenizer, options.model_eos_id);
    plain_encoder.emplace(tokenizer, control_tokens(ChatTemplate::none, tokenizer, options.model_eos_id));
    return *plain_encoder;
  }

  DocumentBuilder begin_chat() {
    Encoder& encoder = chat();
    const bool pieces =
        options.chat_template == ChatTemplate::mistral || template_tokens(options.chat_template).empty();
    return DocumentBuilder(encoder, pieces ? TextPosition::start : TextPosition::continuation);
  }

  void chatml_turn(DocumentBuilder& out, const Turn& turn, Trained trained) const {
    out.control(ids[0]);
    out.text(role_name(turn.role));
    out.text("\n");
    if (trained == Trained::yes) out.train(Trained::yes);
    out.text(turn.content);
    out.control(ids[1]);
    if (trained == Trained::yes) out.train(Trained::no);
    out.text("\n");
  }

  enum class Think { strip, show };
  void qwen3_assistant(DocumentBuilder& out, const Turn& turn, Think think, Trained trained) const {
    const Answer answer = split_reasoning(turn);
    if (think == Think::strip) return chatml_turn(out, {turn.role, answer.content, std::nullopt}, trained);
    out.control(ids[0]);
    out.text("assistant\n");
    if (trained == Trained::yes) out.train(Trained::yes);
    out.control(ids[2]);
    out.text("\n");
    out.text(strip_newlines(answer.reasoning));
    out.text("\n");
    out.control(ids[3]);
    out.text("\n\n");
    out.text(strip_leading_newlines(answer.content));
    out.control(ids[1]);
    if (trained == Trained::yes) out.train(Trained::no);
    out.text("\n");
  }
  /// The first `count` turns as they stand before a further one is generated.
  void qwen3_history(DocumentBuilder& out, const Turns& turns, std::int64_t count) const {
    const std::int64_t query = last_query(turns, count);
    for (std::int64_t i = 0; i < count; ++i) {
      const Turn& turn = turns[static_cast<std::size_t>(i)];
      if (turn.role != Role::assistant) {
        chatml_turn(out, turn, Trained::no);
        continue;
      }
      const bool show = i > query && (i == count - 1 || !split_reasoning(turn).reasoning.empty());
      qwen3_assistant(out, turn, show ? Think::show : Think::strip, Trained::no);
    }
  }

  void llama3_turn(DocumentBuilder& out, const Turn& turn, Trained trained) const {
    out.control(ids[1]);
    out.text(role_name(turn.role));
    out.control(ids[2]);
    out.text("\n\n");
    if (trained == Trained::yes) out.train(Trained::yes);
    out.text(strip_spaces(turn.content));
    out.control(ids[3]);
    if (trained == Trained::yes) out.train(Trained::no);
  }

  /// Mistral and DeepSeek, which have no place for a system message after the first turn.
  void check_system_first(const Turns& turns) const {
    for (std::size_t i = 1; i < turns.size(); ++i)
      require_user(turns[i].role != Role::system,
                   "message {}: the template '{}' takes a system message only as the first one", i + 1,
                   template_name(options.chat_template));
  }
  void check_alternating(const Turns& turns) const {
    check_system_first(turns);
    Role expected = Role::user;
    for (std::size_t i = turns[0].role == Role::system ? 1 : 0; i < turns.size(); ++i) {
      require_user(turns[i].role == expected,
                   "message {}: the template '{}' needs user and assistant in turn, expected {}, found {}",
                   i + 1, template_name(options.chat_template), role_name(expected),
                   role_name(turns[i].role));
      expected = expected == Role::user ? Role::assistant : Role::user;
    }
  }

  void mistral_turns(DocumentBuilder& out, const Turns& turns, const std::vector<Trained>& trained) const {
    const bool system = turns[0].role == Role::system;
    std::size_t last_user = 0;
    for (std::size_t i = 0; i < turns.size(); ++i)
      if (turns[i].role == Role::user) last_user = i;
    out.control(ids[0]);
    for (std::size_t i = system ? 1 : 0; i < turns.size(); ++i) {
      if (turns[i].role == Role::user) {
        out.control(ids[1]);
        if (system && i == last_user) out.text(turns[0].content + "\n\n");
        out.text(turns[i].content);
        out.control(ids[2]);
      } else {
        if (trained[i] == Trained::yes) out.train(Trained::yes);
        out.text(strip_spaces(turns[i].content));
        out.control(ids[3]);
        if (trained[i] == Trained::yes) out.train(Trained::no);
      }
    }
  }

  void deepseek_turns(DocumentBuilder& out, const Turns& turns, const std::vector<Trained>& trained) const {
    out.control(ids[0]);
    for (std::size_t i = 0; i < turns.size(); ++i) {
      if (turns[i].role != Role::system) out.control(turns[i].role == Role::user ? ids[1] : ids[2]);
      if (trained[i] == Trained::yes) out.train(Trained::yes);
      out.text(turns[i].content);
      if (turns[i].role == Role::assistant) out.control(ids[3]);
      if (trained[i] == Trained::yes) out.train(Trained::no);
    }
  }

  /// One document of all turns, for the templates that render a turn the same wherever it stands.
  void whole_conversation(DocumentBuilder& out, const Turns& turns,
                          const std::vector<Trained>& trained) const {
    switch (options.chat_template) {
      case ChatTemplate::chatml:
        for (std::size_t i = 0; i < turns.size(); ++i) chatml_turn(out, turns[i], trained[i]);
        return;
      case ChatTemplate::llama3:
        out.control(ids[0]);
        for (std::size_t i = 0; i < turns.size(); ++i) llama3_turn(out, turns[i], trained[i]);
        return;
      case ChatTemplate::mistral:
        return mistral_turns(out, turns, trained);
      case ChatTemplate::deepseek:
        return deepseek_turns(out, turns, trained);
      default:
        throw InternalError("a template without turns");
    }
  }

  /// Up to and with the answer at `index`, the only one that is trained.
  void up_to_answer(DocumentBuilder& out, const Turns& turns, std::size_t index) const {
    const Turns head(turns.begin(), turns.begin() + static_cast<std::ptrdiff_t>(index) + 1);
    if (options.chat_template == ChatTemplate::qwen3) {
      const auto count = static_cast<std::int64_t>(index);
      qwen3_history(out, turns, count);
      const bool show = count > last_query(turns, count + 1);
      return qwen3_assistant(out, turns[index], show ? Think::show : Think::strip, Trained::yes);
    }
    std::vector<Trained> trained(head.size(), Trained::no);
    trained.back() = Trained::yes;
    whole_conversation(out, head, trained);
  }

  void render_turns(const Turns& turns, Rendered& rendered) {
    chat();
    if (options.chat_template == ChatTemplate::mistral) check_alternating(turns);
    if (options.chat_template == ChatTemplate::deepseek) check_system_first(turns);
    std::vector<std::size_t> answers;
    for (std::size_t i = 0; i < turns.size(); ++i)
      if (turns[i].role == Role::assistant) answers.push_back(i);
    if (options.train_on == TrainOn::last && answers.size() > 1)
      answers.erase(answers.begin(), answers.end() - 1);
    // Mistral moves the system message to the last user's, so that earlier turns look otherwise than a last
    // one.
    const auto users =
        std::count_if(turns.begin(), turns.end(), [](const Turn& turn) { return turn.role == Role::user; });
    const bool turn_by_turn =
        options.chat_template == ChatTemplate::qwen3 ||
        (options.chat_template == ChatTemplate::mistral && turns[0].role == Role::system && users > 1);
    if (turn_by_turn && !answers.empty()) {
      for (const std::size_t index : answers) {
        DocumentBuilder out = begin_chat();
        up_to_answer(out, turns, index);
        rendered.documents.push_back(out.finish(rendered.control_spellings));
      }
      return;
    }
    DocumentBuilder out = begin_chat();
    std::vector<Trained> trained(turns.size(), Trained::no);
    for (const std::size_t index : answers) trained[index] = Trained::yes;
    if (options.chat_template == ChatTemplate::qwen3)
      qwen3_history(out, turns, static_cast<std::int64_t>(turns.size()));
    else
      whole_conversation(out, turns, trained);
    rendered.documents.push_back(out.finish(rendered.control_spellings));
  }

  /// Templates without turns: a prompt, and an answer with the end token.
  void render_plain_answer(const std::string& prompt, const std::string* answer, Rendered& rendered) {
    DocumentBuilder out = begin_chat();
    for (const TokenId id : tokenizer.prefix_ids()) out.control(id);
    out.text(prompt);
    if (answer) {
      out.train(Trained::yes);
      out.text(*answer);
      out.control(end);
    }
    rendered.documents.push_back(out.finish(rendered.control_spellings));
  }
  std::string plain_prompt(const std::string& instruction, const std::string& input) const {
    if (options.chat_template == ChatTemplate::alpaca) {
      std::string prompt(input.empty() ? kAlpacaWithoutInput : kAlpacaWithInput);
      prompt += instruction;
      if (!input.empty()) prompt.append(kAlpacaInput).append(input);
      return prompt.append(kAlpacaResponse);
    }
    const std::string question = with_input(instruction, input);
    return options.chat_template == ChatTemplate::simple ? question + "\n" : question;
  }
  bool has_turns() {
    chat();
    return !template_tokens(options.chat_template).empty();
  }

  void render(const Conversation& conversation, Rendered& rendered) {
    const bool turns_wanted = has_turns();
    const Turns turns = read_turns(conversation);
    if (turns_wanted) return render_turns(turns, rendered);
    const std::size_t question = turns[0].role == Role::system ? 1 : 0;
    const bool fits = turns.size() > question && turns.size() <= question + 2 &&
                      turns[question].role == Role::user &&
                      (turns.size() == question + 1 || turns[question + 1].role == Role::assistant);
    require_user(fits,
                 "the template '{}' takes one question and one answer, the conversation has {} messages; "
                 "choose a chat "
                 "template (qwen3, chatml, llama3, mistral, deepseek)",
                 template_name(options.chat_template), turns.size());
    const std::string prompt =
        question == 1 ? with_system(turns[0].content, turns[1].content) : turns[0].content;
    render_plain_answer(plain_prompt(prompt, ""),
                        turns.size() > question + 1 ? &turns.back().content : nullptr, rendered);
  }
  void render(const Instruction& record, Rendered& rendered) {
    if (has_turns())
      return render_pair(record.system, with_input(record.instruction, record.input), record.output,
                         rendered);
    const std::string instruction =
        record.system ? with_system(*record.system, record.instruction) : record.instruction;
    render_plain_answer(plain_prompt(instruction, record.input), &record.output, rendered);
  }
  void render(const PromptCompletion& record, Rendered& rendered) {
    if (has_turns()) return render_pair(record.system, record.prompt, record.completion, rendered);
    const std::string prompt = record.system ? with_system(*record.system, record.prompt) : record.prompt;
    render_plain_answer(plain_prompt(prompt, ""), &record.completion, rendered);
  }
  void render_pair(const std::optional<std::string>& system, const std::string& question,
                   const std::string& answer, Rendered& rendered) {
    Turns turns;
    if (system) turns.push_back({Role::system, *system, std::nullopt});
    turns.push_back({Role::user, question, std::nullopt});
    turns.push_back({Role::assistant, answer, std::nullopt});
    render_turns(turns, rendered);
  }
  void render(const PlainText& record, Rendered& rendered) {
    DocumentBuilder out(plain(), TextPosition::start);
    out.train(Trained::yes);
    for (const TokenId id : tokenizer.prefix_ids()) out.control(id);
    out.text(record.text);
    out.control(plain_end);
    rendered.documents.push_back(out.finish(rendered.control_spellings));
  }
};

Renderer::Renderer(const Tokenizer& tokenizer, const RenderOptions& options)
    : state_(std::make_unique<State>(tokenizer, options)) {}
Renderer::~Renderer() = default;
Renderer::Renderer(Renderer&&) noexcept = default;
Renderer& Renderer::operator=(Renderer&&) noexcept = default;

Rendered Renderer::render(const TextRecord& record) {
  Rendered rendered;
  std::visit([&](const auto& kind) { state_->render(kind, rendered); }, record);
  return rendered;
}

Document Renderer::render_prompt(const Conversation& conversation) {
  // An empty answer, cut off where it begins to be trained.
  Conversation asked = conversation;
  require_user(!asked.messages.empty() && parse_role(asked.messages.back().role) != Role::assistant,
               "a prompt must end with a message of the user");
  asked.messages.push_back({"assistant", "", std::nullopt});
  Document document = std::move(render(asked).documents.back());
  // Earlier answers may be trained too: the last run of trained tokens is the one that was added.
  std::size_t end = document.tokens.size();
  while (end > 0 && document.loss_mask[end - 1] == 0) --end;
  while (end > 0 && document.loss_mask[end - 1] == 1) --end;
  document.tokens.resize(end);
  document.loss_mask.assign(end, 0);
  return document;
}

}  // namespace verne
