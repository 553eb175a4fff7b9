#pragma once
#include <cstdint>

namespace verne {

/// The ranks over which a parameter's gradient is summed and its optimizer state is dealt out.
enum class ReduceGroup : std::uint8_t {
  data_context  ///< ranks that hold the same weights and see other tokens
};

/// Where else a parameter lies beside the ranks of its reduce group, and how the gradients of these copies
/// become one. Copies are completed behind the reduction, by a collective that gives all of them the same
/// bits: so they stay equal for ever.
struct Placement {
  enum class Copies : std::uint8_t {
    none,      ///< nowhere: each tensor rank holds rows or columns of its own
    partial,   ///< whole on every tensor rank, each of which saw some of the tokens or heads: gradients are
               ///< summed
    equal,     ///< whole on every tensor rank, all with the whole gradient: the first one's counts
    kv_heads,  ///< rows from `first_copied_row` on are on neighbouring tensor ranks, which share key and
               ///< value heads: summed
    stages     ///< on the first and the last pipeline stage, which tie embedding and head: summed
  };
  ReduceGroup group = ReduceGroup::data_context;
  Copies copies = Copies::none;
  std::int64_t first_copied_row = 0;
};

/// Whether this rank is the first of those that hold a copy: its copy is the one that is counted and saved.
struct FirstCopy {
  bool tensor = true, kv_heads = true, stages = true;

  bool of(Placement::Copies copies) const {
    switch (copies) {
      case Placement::Copies::none:
        return true;
      case Placement::Copies::partial:
      case Placement::Copies::equal:
        return tensor;
      case Placement::Copies::kv_heads:
        return kv_heads;
      case Placement::Copies::stages:
        return stages;
    }
    return true;
  }
};

}  // namespace verne
