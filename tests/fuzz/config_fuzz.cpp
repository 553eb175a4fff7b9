// A config.json of any bytes is either refused by a UserError or describes a model whose counts and tables
// can be computed without overflow.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "verne/base/error.hpp"
#include "verne/nn/attention.hpp"
#include "verne/nn/model_tensors.hpp"

namespace {

void expect(bool holds) {
  if (!holds) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const verne::ModelConfig config = verne::parse_model_config(text, "fuzz");
    expect(config.layers > 0 && static_cast<std::int64_t>(config.windows.size()) == config.layers);
    expect(config.kv_heads > 0 && config.heads % config.kv_heads == 0);
    expect(config.rope.rotary_dim >= 2 && config.rope.rotary_dim % 2 == 0 &&
           config.rope.rotary_dim <= config.head_dim);
    if (config.layers > 64) return 0;  // the same for every layer, only slower
    expect(verne::parameter_count(config) > 0);
    const std::vector<std::int64_t> documents = {4096};
    expect(verne::TrainingFlops(config)(documents) > 0);
    for (const verne::ModelTensor& spec : verne::model_tensors(config))
      for (const std::int64_t extent : spec.shape.extents()) expect(extent > 0);
    if (config.head_dim <= 1024) expect(!verne::rope_table_values(config.rope, 2).empty());
  } catch (const verne::UserError&) {
  }
  return 0;
}
