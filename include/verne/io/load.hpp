#pragma once
#include <span>
#include <vector>

#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Fills the ranks' parts from a source that every rank can read: a Hugging Face folder or a group of a
/// checkpoint. Each block of 16 MiB that anybody wants is read (and verified, where the source can) by one
/// rank, which sends the others what they want of it. Floating-point dtypes are converted (f32, bf16, f16,
/// f64, any to any; rounding to nearest even); the dtype of a part does not count. Every tensor's presence,
/// shape and dtype is checked before the first byte is read: UserError that lists what is missing or differs.
/// Elements of local parts that no run covers stay as they are. Collective: where one rank fails all throw,
/// and what the parts then hold is undefined.
void load_parts(const TensorSource& source, const HostGroup& group, Queue& queue,
                std::span<const TensorPart> parts);

/// Parts and where they come from.
struct PartsToLoad {
  const TensorSource& source;
  std::vector<TensorPart> parts;
};
/// The same from several sources at once: one plan, and one exchange that reads on where a source ends.
void load_parts(const HostGroup& group, Queue& queue, std::span<const PartsToLoad> loads);

}  // namespace verne
