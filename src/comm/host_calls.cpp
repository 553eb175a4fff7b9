#include "host_calls.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <string_view>
#include <vector>

#include "mpi_check.hpp"
#include "report_text.hpp"
#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "watchdog_state.hpp"

namespace verne {
namespace {

/// Calls block, so that only those that another one contains are in flight together.
constexpr std::size_t kNested = 16;

std::uint64_t hash_of(const std::array<std::uint64_t, 4>& words) {
  return xxh3(std::as_bytes(std::span(words))) | 1;  // never 0
}

std::int64_t combined(Combine combine, std::int64_t a, std::int64_t b) {
  switch (combine) {
    case Combine::none:
    case Combine::gather:
      return 0;
    case Combine::sum:
      return static_cast<std::int64_t>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
    case Combine::min:
      return std::min(a, b);
    case Combine::max:
      return std::max(a, b);
    case Combine::max_of_doubles:
      return std::bit_cast<double>(b) > std::bit_cast<double>(a) || std::isnan(std::bit_cast<double>(b)) ? b
                                                                                                         : a;
  }
  return 0;
}

void combine_words(void* in, void* in_out, int* count, MPI_Datatype*) {
  const auto* theirs = static_cast<const HostWord*>(in);
  auto* mine = static_cast<HostWord*>(in_out);
  for (int i = 0; i < *count; ++i) {
    if (theirs[i].tag == mine[i].tag) {
      mine[i].bits = combined(mine[i].combine, theirs[i].bits, mine[i].bits);
    } else {
      mine[i].tag = kMixedTag;
    }
  }
}

std::vector<std::string> gather_texts(const HostGroup& group, const std::string& own) {
  constexpr std::size_t kLength = 256;
  std::string padded = own;
  padded.resize(kLength, '\0');
  std::string all(kLength * static_cast<std::size_t>(group.size()), '\0');
  check_mpi(
      MPI_Allgather(padded.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, group.communicator()),
      "MPI_Allgather");
  std::vector<std::string> texts;
  for (std::size_t begin = 0; begin < all.size(); begin += kLength) {
    const std::string text = all.substr(begin, kLength);
    texts.push_back(text.substr(0, text.find('\0')));
  }
  return texts;
}

}  // namespace

HostCalls::HostCalls(std::shared_ptr<WatchPost> post, std::uint64_t key) : post_(std::move(post)), key_(key) {
  check_mpi(MPI_Type_contiguous(sizeof(HostWord), MPI_BYTE, &word_type_), "MPI_Type_contiguous");
  check_mpi(MPI_Type_commit(&word_type_), "MPI_Type_commit");
  check_mpi(MPI_Op_create(&combine_words, 1, &combine_words_), "MPI_Op_create");
}

HostCalls::~HostCalls() {
  if (const auto track = track_.lock()) post_->watchdog->remove(*track);
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized) return;
  if (combine_words_ != MPI_OP_NULL) MPI_Op_free(&combine_words_);
  if (word_type_ != MPI_DATATYPE_NULL) MPI_Type_free(&word_type_);
}

std::unique_ptr<HostCalls> HostCalls::child(int colour) {
  ++splits_;
  return std::make_unique<HostCalls>(
      post_, hash_of({key_, static_cast<std::uint64_t>(splits_), static_cast<std::uint64_t>(colour), 0}));
}

std::shared_ptr<ProgressTrack> HostCalls::track(const HostGroup& group) {
  auto track = track_.lock();
  if (track || !post_->watchdog) return track;
  std::vector<std::int64_t> members = group.world_ranks();
  std::string subject = "the host group of " + ranks_text(members);
  track = std::make_shared<ProgressTrack>(std::move(subject), std::move(members), key_,
                                          std::make_unique<HostMarks>(), kNested, calls_);
  post_->watchdog->add(track);
  track_ = track;
  return track;
}

HostCall::HostCall(const HostGroup& group, const char* name, std::source_location caller)
    : group_(group), calls_(*group.calls()), name_(name), caller_(caller), track_(calls_.track(group)) {
  number_ = ++calls_.calls_;
  if (track_) {
    track_->begin(
        {.operation = name, .file = caller.file_name(), .line = static_cast<std::int64_t>(caller.line())});
  }
}

HostCall::~HostCall() {
  if (track_) track_->end(number_);
}

std::uint64_t HostCall::tag(Combine combine) const {
  std::uint64_t file = 0, line = 0;
  if (combine != Combine::none) {
    file = xxh3(std::string_view(caller_.file_name()));
    line = std::uint64_t{caller_.line()} << 32 | caller_.column();
  }
  return hash_of({xxh3(std::string_view(name_)), file, line, static_cast<std::uint64_t>(number_)});
}

std::int64_t HostCall::combine(Combine combine, std::int64_t bits) const {
  HostWord word{.tag = tag(combine), .combine = combine, .bits = bits};
  const std::uint64_t own = word.tag;
  check_mpi(
      MPI_Allreduce(MPI_IN_PLACE, &word, 1, calls_.word_type_, calls_.combine_words_, group_.communicator()),
      name_);
  if (word.tag != own) refuse_mixed();
  return word.bits;
}

std::vector<std::int64_t> HostCall::gather(std::int64_t bits) const {
  const HostWord own{.tag = tag(Combine::gather), .combine = Combine::gather, .bits = bits};
  std::vector<HostWord> words(static_cast<std::size_t>(group_.size()));
  check_mpi(
      MPI_Allgather(&own, 1, calls_.word_type_, words.data(), 1, calls_.word_type_, group_.communicator()),
      name_);
  return checked(words);
}

std::vector<std::int64_t> HostCall::swap(const std::vector<std::int64_t>& bits) const {
  std::vector<HostWord> out(bits.size(),
                            {.tag = tag(Combine::gather), .combine = Combine::gather, .bits = 0});
  std::vector<HostWord> words(bits.size());
  for (std::size_t r = 0; r < bits.size(); ++r) out[r].bits = bits[r];
  check_mpi(MPI_Alltoall(out.data(), 1, calls_.word_type_, words.data(), 1, calls_.word_type_,
                         group_.communicator()),
            name_);
  return checked(words);
}

std::vector<std::int64_t> HostCall::checked(const std::vector<HostWord>& words) const {
  const std::uint64_t own = tag(Combine::gather);
  std::vector<std::int64_t> values;
  for (const HostWord& word : words) {
    if (word.tag != own) refuse_mixed();
    values.push_back(word.bits);
  }
  return values;
}

void HostCall::refuse_mixed() const {
  const std::string own =
      fmt::format("{} number {} at {}", name_, number_, place_text(caller_.file_name(), caller_.line()));
  std::map<std::string, std::vector<std::int64_t>> ranks;
  const std::vector<std::string> calls = gather_texts(group_, own);
  const std::vector<std::int64_t> world = group_.world_ranks();
  for (std::size_t r = 0; r < calls.size(); ++r) ranks[calls[r]].push_back(world[r]);
  std::string text;
  for (const auto& [call, who] : ranks)
    text += fmt::format("{}{} on {}", text.empty() ? "" : ", ", call, ranks_text(who));
  throw InternalError("different host collectives met: " + text);
}

}  // namespace verne
