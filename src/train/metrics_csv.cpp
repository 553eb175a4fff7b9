#include "verne/train/metrics_csv.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>

#include "verne/base/error.hpp"

namespace verne {
namespace {

constexpr std::string_view kHeader =
    "step,consumed_samples,consumed_tokens,loss,grad_norm,lr,val_loss,step_time_s,tokens_per_s,tflops_per_"
    "gpu,mfu,"
    "peak_memory_gb";

void append(std::string& line, const std::optional<std::int64_t>& value) {
  line += ',';
  if (value) line += fmt::format("{}", *value);
}
void append(std::string& line, const std::optional<double>& value) {
  line += ',';
  if (value) line += fmt::format("{:.9g}", *value);
}

void write_all(int descriptor, std::string_view text, const std::filesystem::path& file) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw_errno(fmt::format("{} cannot be written", file.string()), errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Length of the part of `text` to keep: the header and the whole rows up to `last_step`, in rising order.
std::size_t kept_length(std::string_view text, std::int64_t last_step, const std::filesystem::path& file) {
  const std::size_t header_end = text.find('\n');
  if (header_end == std::string_view::npos) return 0;  // torn while the header was written
  require_user(text.substr(0, header_end) == kHeader,
               "{}: its first line is \"{}\", not this program's columns. Give the run another run.dir.",
               file.string(), text.substr(0, std::min<std::size_t>(header_end, 200)));
  std::size_t kept = header_end + 1;
  std::int64_t previous = -1;
  while (kept < text.size()) {
    const std::size_t end = text.find('\n', kept);
    if (end == std::string_view::npos) break;
    const std::string_view row = text.substr(kept, end - kept);
    std::int64_t step = 0;
    const auto parsed = std::from_chars(row.data(), row.data() + row.size(), step);
    const auto commas = std::count(row.begin(), row.end(), ',');
    const bool whole = parsed.ec == std::errc() && parsed.ptr != row.data() + row.size() &&
                       *parsed.ptr == ',' && commas == std::count(kHeader.begin(), kHeader.end(), ',');
    if (!whole || step > last_step || step <= previous) break;
    previous = step;
    kept = end + 1;
  }
  return kept;
}

}  // namespace

std::string metrics_header() {
  return std::string(kHeader);
}

std::string metrics_line(const MetricsRow& row) {
  std::string line = fmt::format("{}", row.step);
  append(line, row.consumed_samples);
  append(line, row.consumed_tokens);
  for (const auto& value : {row.loss, row.grad_norm, row.lr, row.val_loss, row.step_time_s, row.tokens_per_s,
                            row.tflops_per_gpu, row.mfu, row.peak_memory_gb}) {
    append(line, value);
  }
  return line;
}

MetricsCsv::MetricsCsv(const std::filesystem::path& file, std::int64_t last_step) : file_(file) {
  std::size_t kept = 0;
  if (last_step >= 0) {
    std::ostringstream text;
    text << std::ifstream(file, std::ios::binary).rdbuf();
    kept = kept_length(text.str(), last_step, file);
  }
  descriptor_ = ::open(file.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_errno(fmt::format("{} cannot be opened for writing", file.string()), errno);
  try {
    if (::ftruncate(descriptor_, static_cast<off_t>(kept)) != 0 || ::lseek(descriptor_, 0, SEEK_END) < 0) {
      throw_errno(fmt::format("{} cannot be cut to {} bytes", file.string(), kept), errno);
    }
    if (kept == 0) write_all(descriptor_, fmt::format("{}\n", kHeader), file_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

MetricsCsv::~MetricsCsv() {
  ::close(descriptor_);
}

void MetricsCsv::write(const MetricsRow& row) {
  write_all(descriptor_, metrics_line(row) + "\n", file_);
}

void MetricsCsv::sync() {
  if (::fsync(descriptor_) != 0) throw_errno(fmt::format("{} cannot be synced", file_.string()), errno);
}

}  // namespace verne
