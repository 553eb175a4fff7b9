#include "verne/checkpoint/frozen.hpp"

#include <algorithm>
#include <optional>

#include "verne/base/error.hpp"
#include "verne/base/hash.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/all_to_all.hpp"
#include "verne/io/blocks.hpp"

namespace verne {
namespace {

struct BlockHash {
  std::int64_t block;
  std::uint64_t value;
};

std::vector<TensorInfo> find_all(const TensorSource& source, std::span<const std::string> names,
                                 const std::unordered_map<std::string_view, std::size_t>& position) {
  std::vector<TensorInfo> found;
  for (const std::string& name : names) {
    const auto at = position.find(name);
    require_user(at != position.end(), "{}: there is no {}, which a checkpoint refers to", source.origin(),
                 name);
    found.push_back(source.tensors()[at->second]);
  }
  return found;
}

/// What the ranks know, at the home of each block; a home's own list is by block.
std::vector<BlockHash> at_homes(const HostGroup& group, const std::vector<BlockHash>& known) {
  ByRank<BlockHash> to(static_cast<std::size_t>(group.size()));
  for (const BlockHash& hash : known)
    to[static_cast<std::size_t>(home_of(hash.block, group.size()))].push_back(hash);
  std::vector<BlockHash> own;
  for (const auto& hashes : all_to_all(group, to)) own.insert(own.end(), hashes.begin(), hashes.end());
  const auto before = [](const BlockHash& a, const BlockHash& b) { return a.block < b.block; };
  const auto same = [](const BlockHash& a, const BlockHash& b) { return a.block == b.block; };
  std::sort(own.begin(), own.end(), before);
  own.erase(std::unique(own.begin(), own.end(), same), own.end());
  return own;
}

}  // namespace

HashedSource::HashedSource(const TensorSource& source) : source_(source) {
  for (const TensorInfo& tensor : source.tensors()) position_.emplace(tensor.name, position_.size());
}

void HashedSource::read_block(const TensorInfo& tensor, std::int64_t block, std::span<std::byte> to) const {
  source_.read_block(tensor, block, to);
  const std::uint64_t hash = xxh3(to);
  const std::lock_guard lock(mutex_);
  hashes_[{position_.at(tensor.name), block}] = hash;
}

std::vector<std::uint64_t> HashedSource::checksums(const HostGroup& group,
                                                   std::span<const std::string> names) const {
  std::optional<BlockIndex> index;
  agree_after(group, [&] { index.emplace(find_all(source_, names, position_)); });
  std::vector<BlockHash> known;
  for (std::int64_t number = 0; number < index->blocks(); ++number) {
    const BlockIndex::Place place = index->place(number);
    const auto hash = hashes_.find({position_.at(index->tensors()[place.tensor].name), place.block});
    if (hash != hashes_.end()) known.push_back({number, hash->second});
  }
  std::vector<BlockHash> own = at_homes(group, known);
  // Every home reads what is still missing.
  std::vector<std::int64_t> all(static_cast<std::size_t>(index->blocks()), 0);
  agree_after(group, [&] {
    auto next = own.begin();
    std::vector<std::byte> bytes;
    for (std::int64_t number = group.rank(); number < index->blocks(); number += group.size()) {
      if (next != own.end() && next->block == number) {
        all[static_cast<std::size_t>(number)] = static_cast<std::int64_t>((next++)->value);
        continue;
      }
      const BlockIndex::Place place = index->place(number);
      const TensorInfo& tensor = index->tensors()[place.tensor];
      bytes.resize(static_cast<std::size_t>(block_bytes(tensor, place.block)));
      source_.read_block(tensor, place.block, bytes);
      all[static_cast<std::size_t>(number)] = static_cast<std::int64_t>(xxh3(bytes));
    }
  });
  group.sum(std::span(all));  // zero on all ranks but a block's home
  std::vector<std::uint64_t> checksums;
  for (std::size_t tensor = 0; tensor < names.size(); ++tensor) {
    const std::int64_t blocks = block_count(index->tensors()[tensor]);
    const auto hashes = blocks == 0
                            ? std::span<std::int64_t>{}
                            : std::span(all).subspan(static_cast<std::size_t>(index->number(tensor, 0)),
                                                     static_cast<std::size_t>(blocks));
    checksums.push_back(xxh3(std::as_bytes(hashes)));
  }
  return checksums;
}

void check_frozen(const std::vector<FrozenTensor>& frozen, const HashedSource& source,
                  const HostGroup& group) {
  constexpr std::size_t kShown = 8;
  std::vector<std::string> names, changed;
  for (const FrozenTensor& tensor : frozen) names.push_back(tensor.name);
  const std::vector<std::uint64_t> found = source.checksums(group, names);
  for (std::size_t i = 0; i < frozen.size(); ++i)
    if (found[i] != frozen[i].checksum) changed.push_back(frozen[i].name);
  if (changed.empty()) return;
  const std::size_t shown = std::min(kShown, changed.size());
  throw_user_error(
      "{}: {} of {} tensors are not what they were when the checkpoint was made ({}{}): it refers to {} as "
      "it "
      "was then; put that model back or start anew",
      source.origin(), changed.size(), frozen.size(),
      fmt::join(changed.begin(), changed.begin() + static_cast<std::ptrdiff_t>(shown), ", "),
      changed.size() > shown ? ", …" : "", frozen[0].source);
}

}  // namespace verne
