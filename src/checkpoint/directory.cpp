#include "verne/checkpoint/directory.hpp"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "verne/base/error.hpp"
#include "verne/base/log.hpp"
#include "verne/checkpoint/reader.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/file.hpp"

namespace verne {
namespace fs = std::filesystem;
namespace {

std::optional<std::int64_t> parse_step(std::string_view digits) {
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size() || step < 0)
    return std::nullopt;
  return step;
}

/// Steps that have a file, whole or not, ascending.
std::vector<std::int64_t> steps_in(const fs::path& directory) {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.is_symlink() || !entry.is_regular_file()) continue;
    if (const auto step = step_of_checkpoint_name(entry.path().filename().string())) steps.push_back(*step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

/// What `look` finds in a file; no value, and a warning, where it is not whole.
template <class Look>
std::optional<CheckpointKind> kind_of(const fs::path& file, const Look& look) {
  try {
    return look(file);
  } catch (const UserError& error) {
    log_warning("passed over a checkpoint that is not whole: {}", error.what());
    return std::nullopt;
  }
}

bool is_run(const fs::path& path) {
  return fs::is_directory(path / "checkpoints");
}

/// RUN and the word after the last '@'; no value where there is none or the whole is a path that exists.
std::optional<std::pair<fs::path, std::string>> split_at(const std::string& text) {
  const std::size_t at = text.rfind('@');
  if (at == std::string::npos || at == 0 || fs::exists(text)) return std::nullopt;
  const std::string word = text.substr(at + 1);
  if (word != "best" && word != "last" && !parse_step(word)) return std::nullopt;
  return std::pair{fs::path(text.substr(0, at)), word};
}

std::string listed(const CheckpointDirectory& directory) {
  std::vector<std::string> words;
  for (const std::int64_t step : steps_in(directory.path())) words.push_back(std::to_string(step));
  if (directory.last()) words.push_back("last");
  if (directory.best()) words.push_back("best");
  return words.empty() ? "nothing" : fmt::format("{}", fmt::join(words, ", "));
}

}  // namespace

std::string checkpoint_name(std::int64_t step) {
  return fmt::format("step_{:08}.h5", step);
}

std::optional<std::int64_t> step_of_checkpoint_name(std::string_view name) {
  constexpr std::string_view kHead = "step_", kTail = ".h5";
  if (name.size() < kHead.size() + 8 + kTail.size() || !name.starts_with(kHead) || !name.ends_with(kTail))
    return {};
  const auto step = parse_step(name.substr(kHead.size(), name.size() - kHead.size() - kTail.size()));
  return step && checkpoint_name(*step) == name ? step : std::nullopt;
}

void CheckpointDirectory::prepare() const {
  make_directories(path_);
  std::error_code error;
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(path_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".step_") || name.starts_with(".last") || name.starts_with(".best"))
      stale.push_back(entry);
  }
  for (const fs::path& path : stale) {
    if (!fs::remove(path, error) && error) throw_errno("cannot remove " + path.string(), error.value());
  }
}

std::vector<CheckpointDirectory::Entry> CheckpointDirectory::whole() {
  std::vector<Entry> entries;
  for (const std::int64_t step : steps_in(path_)) {
    if (!known_.contains(step)) {
      const auto kind = kind_of(file(step), checkpoint_kind);
      if (!kind) continue;
      known_[step] = *kind;
    }
    entries.push_back({step, file(step), known_[step]});
  }
  return entries;
}

std::optional<CheckpointDirectory::Entry> CheckpointDirectory::newest_resumable() const {
  const auto verified = [](const fs::path& path) {
    if (checkpoint_kind(path) == CheckpointKind::resumable) {
      const CheckpointReader reader(path);
      return CheckpointKind::resumable;
    }
    return CheckpointKind::weights_only;
  };
  const std::vector<std::int64_t> steps = steps_in(path_);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (kind_of(file(*step), verified) == CheckpointKind::resumable)
      return Entry{*step, file(*step), CheckpointKind::resumable};
  }
  return std::nullopt;
}

void CheckpointDirectory::link(const std::string& name, std::int64_t step) const {
  require(fs::is_regular_file(file(step)), "{} would point at {}, which is not there", name,
          file(step).string());
  const fs::path aside = path_ / ("." + name + ".link");
  ::unlink(aside.c_str());
  if (::symlink(checkpoint_name(step).c_str(), aside.c_str()) != 0)
    throw_errno("cannot make " + aside.string(), errno);
  if (::rename(aside.c_str(), (path_ / name).c_str()) != 0)
    throw_errno("cannot replace " + (path_ / name).string(), errno);
  sync_directory(path_);
}

std::optional<std::int64_t> CheckpointDirectory::linked(const std::string& name) const {
  std::error_code error;
  const fs::path target = fs::read_symlink(path_ / name, error);
  if (error) return std::nullopt;
  const auto step = step_of_checkpoint_name(target.string());
  return step && fs::is_regular_file(file(*step), error) ? step : std::nullopt;
}

std::vector<std::int64_t> CheckpointDirectory::prune(const Retention& retention) {
  std::set<std::int64_t> kept;
  for (const auto& step : {last(), best(), retention.resumed_from}) {
    if (step) kept.insert(*step);
  }
  const auto ranked =
      std::min<std::size_t>(retention.ranking.size(), static_cast<std::size_t>(retention.keep_best));
  kept.insert(retention.ranking.begin(), retention.ranking.begin() + static_cast<std::ptrdiff_t>(ranked));

  const std::vector<Entry> entries = whole();
  int resumable = 0;
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (entry->kind == CheckpointKind::resumable && (retention.keep == 0 || resumable++ < retention.keep))
      kept.insert(entry->step);
  }
  std::vector<std::int64_t> removed;
  for (const Entry& entry : entries) {
    if (kept.contains(entry.step)) continue;
    std::error_code error;
    fs::remove(entry.file, error);
    if (error) {
      log_warning("cannot remove the old checkpoint {}: {}", entry.file.string(), error.message());
    } else {
      removed.push_back(entry.step);
      known_.erase(entry.step);
    }
  }
  return removed;
}

ResolvedCheckpoint resolve_checkpoint(const std::string& text) {
  if (fs::is_regular_file(text)) return {text, ""};
  const auto named = split_at(text);
  const fs::path run = named ? named->first : fs::path(text);
  if (!is_run(run)) {
    throw_user_error(
        "{}: neither a checkpoint file nor a run (a folder with checkpoints/); give FILE.h5, RUN, RUN@best, "
        "RUN@last or "
        "RUN@STEP",
        text);
  }
  const CheckpointDirectory directory(run / "checkpoints");
  if (!named) {
    const auto best = directory.best();
    const auto step = best ? best : directory.last();
    if (!step)
      throw_user_error("{}: the run has no checkpoint that is best or last; it has {}", text,
                       listed(directory));
    return {directory.file(*step),
            fmt::format("{} of {} (step {})", best ? "best" : "last", run.string(), *step)};
  }
  const std::string& word = named->second;
  const auto step = word == "best" ? directory.best() : word == "last" ? directory.last() : parse_step(word);
  if (!step || !fs::is_regular_file(directory.file(*step))) {
    throw_user_error("{}: the run has no such checkpoint; it has {}", text, listed(directory));
  }
  return {directory.file(*step), fmt::format("{} of {} (step {})", word, run.string(), *step)};
}

ResolvedCheckpoint resolve_checkpoint(const std::string& text, const HostGroup& group) {
  ResolvedCheckpoint found;
  agree_after(group, [&] {
    if (group.rank() == 0) found = resolve_checkpoint(text);
  });
  return {group.broadcast_text(found.file.string(), 0), group.broadcast_text(found.chosen, 0)};
}

bool names_checkpoint(const std::string& text) {
  if (fs::is_regular_file(text)) return true;
  if (const auto named = split_at(text)) return !fs::exists(named->first) || is_run(named->first);
  return fs::is_directory(text) && !fs::exists(fs::path(text) / "config.json") && is_run(text);
}

}  // namespace verne
