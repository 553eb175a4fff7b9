#include "verne/io/load.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "block_exchange.hpp"
#include "verne/base/error.hpp"
#include "verne/comm/agree.hpp"
#include "verne/io/all_to_all.hpp"
#include "verne/io/convert.hpp"

namespace verne {
namespace {

/// What is wrong with a part that the source has no such tensor for.
std::string absence(const TensorSource& source, const TensorPart& part) {
  const auto& unsupported = source.unsupported();
  const auto other = std::find_if(unsupported.begin(), unsupported.end(),
                                  [&](const UnsupportedTensor& tensor) { return tensor.name == part.name; });
  return other == unsupported.end() ? fmt::format("{} {} is missing", part.name, part.shape.text())
                                    : other->text() + ", which cannot be read";
}

/// The tensor of each part: there, of the right shape and of a dtype that converts; all that is wrong in one
/// message.
std::vector<std::size_t> match(const TensorSource& source, std::span<const TensorPart> parts) {
  constexpr std::size_t kShown = 8;
  std::unordered_map<std::string_view, std::size_t> position;
  for (const TensorInfo& tensor : source.tensors()) position.emplace(tensor.name, position.size());
  std::vector<std::size_t> tensor_of;
  std::vector<std::string> wrong;
  for (const TensorPart& part : parts) {
    const auto found = position.find(part.name);
    tensor_of.push_back(found == position.end() ? 0 : found->second);
    if (found == position.end()) {
      wrong.push_back(absence(source, part));
      continue;
    }
    const TensorInfo& tensor = source.tensors()[found->second];
    const DType wanted = part.local ? part.local.dtype() : part.dtype;
    if (tensor.shape != part.shape) {
      wrong.push_back(
          fmt::format("{} has shape {}, expected {}", part.name, tensor.shape.text(), part.shape.text()));
    } else if (!convertible(tensor.dtype, wanted)) {
      wrong.push_back(
          fmt::format("{} is {}, which does not convert to {}", part.name, name(tensor.dtype), name(wanted)));
    }
  }
  if (wrong.empty()) return tensor_of;
  std::string list;
  for (std::size_t i = 0; i < std::min(kShown, wrong.size()); ++i) list += "\n  " + one_line(wrong[i]);
  if (wrong.size() > kShown) list += fmt::format("\n  and {} more", wrong.size() - kShown);
  throw_user_error("{}: the tensors do not fit the model:{}", source.origin(), OwnLines{list});
}

ReadPlan plan_reads(const PartBlocks& wanted, const HostGroup& group) {
  const int rank = group.rank(), ranks = group.size();
  HomeReads home(wanted.index(), rank, ranks, all_to_all(group, shares_by_home(wanted.shares(), ranks)));
  std::vector<std::int64_t> loads = home.loads();
  group.sum(std::span(loads));
  const std::vector<std::int64_t> free_bytes = group.all_gather(home.free_bytes(loads));
  const auto readers = all_to_all(group, home.readers(loads, free_bytes));
  ReadPlan plan;
  accept_requests(wanted.index(), all_to_all(group, request_blocks(wanted, rank, ranks, readers, plan)),
                  plan);
  return plan;
}

}  // namespace

void load_parts(const TensorSource& source, const HostGroup& group, Queue& queue,
                std::span<const TensorPart> parts) {
  const PartsToLoad load{source, {parts.begin(), parts.end()}};
  load_parts(group, queue, std::span(&load, 1));
}

void load_parts(const HostGroup& group, Queue& queue, std::span<const PartsToLoad> loads) {
  std::vector<TensorInfo> tensors;
  std::vector<const TensorSource*> source_of;  // by tensor
  for (const PartsToLoad& load : loads) {
    tensors.insert(tensors.end(), load.source.tensors().begin(), load.source.tensors().end());
    source_of.resize(tensors.size(), &load.source);
  }
  const BlockIndex index(std::move(tensors));
  std::optional<PartBlocks> wanted;
  agree_after(group, [&] {
    std::vector<TensorPart> parts;
    std::vector<std::size_t> tensor_of;
    std::size_t first = 0;
    for (const PartsToLoad& load : loads) {
      for (const std::size_t tensor : match(load.source, load.parts)) tensor_of.push_back(first + tensor);
      parts.insert(parts.end(), load.parts.begin(), load.parts.end());
      first += load.source.tensors().size();
    }
    wanted.emplace(index, parts, tensor_of);
  });
  const ReadPlan plan = plan_reads(*wanted, group);
  const ReadAhead::Source source{
      .read =
          [&](const BlockIndex::Place& place, std::span<std::byte> to) {
            source_of[place.tensor]->read_block(index.tensors()[place.tensor], place.block, to);
          },
      .will_read =
          [&](const BlockIndex::Place& place) {
            source_of[place.tensor]->will_read_block(index.tensors()[place.tensor], place.block);
          }};
  std::optional<BlockExchange> exchange;
  agree_after(group, [&] { exchange.emplace(source, group, queue, *wanted, plan); });
  agree(group, exchange->run());
}

}  // namespace verne
