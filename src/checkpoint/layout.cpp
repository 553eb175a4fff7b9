#include "layout.hpp"

#include <array>

#include "verne/base/checked.hpp"
#include "verne/base/error.hpp"
#include "verne/checkpoint/index.hpp"
#include "verne/io/hdf5.hpp"
#include "verne/io/json.hpp"

namespace verne {
namespace {

CheckpointIndex index_of_layout(const FileTensors& tensors, const FileLayout& layout) {
  CheckpointIndex index;
  index.file_bytes = layout.image.size();
  for (const CheckpointGroup group : kAllCheckpointGroups) {
    std::size_t at = tensors.first(group);
    for (const TensorInfo& tensor : tensors.tensors(group))
      index.groups[index_of(group)].push_back({tensor, layout.offsets[at++]});
  }
  return index;
}

std::string frozen_text(const std::vector<FrozenTensor>& frozen) {
  Json list = Json::array();
  for (const FrozenTensor& tensor : frozen) {
    list.push_back({{"name", tensor.name}, {"checksum", tensor.checksum}, {"source", tensor.source}});
  }
  return list.dump(1);
}

}  // namespace

FileLayout lay_out(const FileTensors& tensors, const FileTexts& texts, const std::string& name) {
  FileLayout layout;
  Hdf5File file = Hdf5File::create_in_memory(layout.image, name);
  file.write_attribute("/", "format", kCheckpointFormat);
  file.write_attribute("/", "format_version", kCheckpointFormatVersion);
  const std::string state = state_text(texts.state);
  layout.state_bytes = state_room(state);
  layout.state_at = file.create_text("/state", layout.state_bytes);
  file.write_text("/config", texts.side_files.config);
  file.create_group("/tokenizer");
  for (const auto& [file_name, bytes] : texts.side_files.tokenizer)
    file.write_bytes("/tokenizer/" + file_name, bytes);
  if (!texts.frozen.empty()) file.write_text("/frozen", frozen_text(texts.frozen));

  for (const CheckpointGroup group : kAllCheckpointGroups) {
    const auto list = tensors.tensors(group);
    if (list.empty()) continue;
    const auto offsets = file.create_tensors(std::string(path_of(group)), list);
    layout.offsets.insert(layout.offsets.end(), offsets.begin(), offsets.end());
    const std::array blocks{tensors.blocks(group).count()};
    layout.checksums_at[index_of(group)] =
        file.create_dataset(checksums_path_of(group), Hdf5Type::u64, blocks).file_offset();
  }
  layout.digest_at =
      file.create_dataset("/checksums/digest", Hdf5Type::u64, std::array{std::int64_t{1}}).file_offset();

  // Its length does not depend on the file's size, which is known once the file is closed.
  const std::int64_t index_bytes = encoded_bytes(index_of_layout(tensors, layout));
  const std::int64_t index_at =
      file.create_dataset("/index", Hdf5Type::u8, std::array{index_bytes}).file_offset();
  file.close();
  layout.image.write(index_at, encode_index(index_of_layout(tensors, layout)));
  set_state(layout, state);
  return layout;
}

std::string state_text(const CheckpointState& state) {
  return state.values.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::int64_t state_room(const std::string& text) {
  constexpr std::int64_t kSpare = 1024, kStep = 16 << 10;
  return round_up(std::ssize(text) + kSpare, kStep);
}

void set_state(FileLayout& layout, const std::string& text) {
  require(state_room(text) == layout.state_bytes, "a state of {} bytes where there is room for {}",
          text.size(), layout.state_bytes);
  std::string padded = text;
  padded.resize(static_cast<std::size_t>(layout.state_bytes), '\0');
  layout.image.write(layout.state_at, std::as_bytes(std::span(padded)));
}

}  // namespace verne
