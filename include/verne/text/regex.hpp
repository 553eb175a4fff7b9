#pragma once
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace verne {

/// A compiled Perl-compatible pattern over valid UTF-8, with Unicode classes (PCRE2, UTF and UCP), compiled
/// to machine code where the machine allows it. Immutable; matching keeps its scratch in `Matcher`.
class Regex {
 public:
  /// UserError where `pattern` is not one; `origin` says whose it is.
  Regex(const std::string& pattern, const std::string& origin);

  struct Span {
    std::size_t begin, end;
  };
  /// Finds matches in one text from left to right. Not thread-safe.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(Matcher&&) noexcept;
    /// The next match in `text` that begins at or after `from`. UserError where the pattern needs too much
    /// work.
    std::optional<Span> find(std::string_view text, std::size_t from);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

  const std::string& pattern() const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace verne
