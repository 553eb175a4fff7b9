#define PCRE2_CODE_UNIT_WIDTH 8
#include "verne/text/regex.hpp"

#include <pcre2.h>

#include <array>

#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr std::uint32_t kMatchLimit = 10'000'000;
constexpr std::uint32_t kHeapLimitKib = 256 * 1024;

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

/// PCRE2 spelling of a pattern in the dialect of Oniguruma (Ruby's syntax), which tokenizer files use: \w and
/// \W take marks and connectors (UTS 18), \h is a hexadecimal digit. What PCRE2 would silently read otherwise
/// is refused.
std::string translate(const std::string& pattern, const std::string& origin) {
  const std::string word = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200C}\x{200D})";
  std::string out;
  bool in_class = false;
  std::size_t class_begin = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    if (c == '\\' && next != '\0') {
      ++i;
      if (next == 'w')
        out += in_class ? word : "[" + word + "]";
      else if (next == 'W' && !in_class)
        out += "[^" + word + "]";
      else if (next == 'h')
        out += in_class ? "0-9a-fA-F" : "[0-9a-fA-F]";
      else
        out.append({c, next});
      continue;
    }
    if (in_class) {
      require_user(!(c == '[' && next != ':') && !(c == '&' && next == '&'),
                   "{}: the pattern '{}' has a set within a set, which is not supported", origin, pattern);
      if (c == '[') {  // [:name:]
        const std::size_t end = pattern.find(":]", i);
        require_user(end != std::string::npos, "{}: the pattern '{}' has an open bracket", origin, pattern);
        out.append(pattern, i, end + 2 - i);
        i = end + 1;
        continue;
      }
      if (c == ']' && i > class_begin) in_class = false;
    } else if (c == '[') {
      in_class = true;
      class_begin = i + (next == '^' ? 2 : 1);
    }
    out.push_back(c);
  }
  return out;
}

}  // namespace

struct Regex::Code {
  std::string pattern, origin;
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& origin) {
  auto owned = std::make_shared<Code>();
  owned->pattern = pattern;
  owned->origin = origin;
  require_user(pattern.size() <= 65536, "{}: the pattern has {} bytes, more than the 65536 that are accepted",
               origin, pattern.size());
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::string translated = translate(pattern, origin);
  // In Oniguruma ^ and $ always match at lines.
  owned->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                              &offset, nullptr);
  require_user(owned->code != nullptr, "{}: the pattern '{}' is not understood: {} (at byte {})", origin,
               pattern, error_text(error), offset);
  pcre2_jit_compile(owned->code, PCRE2_JIT_COMPLETE);  // where it fails, the interpreter does the same
  code_ = std::move(owned);
}

const std::string& Regex::pattern() const {
  return code_->pattern;
}

struct Regex::Matcher::State {
  std::shared_ptr<const Code> code;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->code = regex.code_;
  state_->data = pcre2_match_data_create_from_pattern(regex.code_->code, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(64 * 1024, 16 * 1024 * 1024, nullptr);
  if (!state_->data || !state_->context || !state_->stack)
    throw SystemError("no memory for a regular expression");
  pcre2_set_match_limit(state_->context, kMatchLimit);
  pcre2_set_heap_limit(state_->context, kHeapLimitKib);
  pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}
Regex::Matcher::~Matcher() = default;
Regex::Matcher::Matcher(Matcher&&) noexcept = default;

std::optional<Regex::Span> Regex::Matcher::find(std::string_view text, std::size_t from) {
  const int count = pcre2_match(state_->code->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                                from, PCRE2_NO_UTF_CHECK, state_->data, state_->context);
  if (count == PCRE2_ERROR_NOMATCH) return std::nullopt;
  require_user(count >= 0, "{}: the pattern '{}' fails on a text of {} bytes: {}", state_->code->origin,
               state_->code->pattern, text.size(), error_text(count));
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(state_->data);
  // \K inside a look-ahead can end a match before it begins.
  require_user(span[0] <= span[1] && span[0] >= from,
               "{}: the pattern '{}' matches backwards, which is not supported", state_->code->origin,
               state_->code->pattern);
  return Span{span[0], span[1]};
}

}  // namespace verne
