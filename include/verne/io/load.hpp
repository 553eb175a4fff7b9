#pragma once
#include <span>

#include "verne/comm/host_group.hpp"
#include "verne/io/tensor_part.hpp"

namespace verne {

/// Fills every rank's local parts from a source that every rank can read, converting floating-point dtypes
/// (f32, bf16, f16, f64, any to any; rounding to nearest even). Every tensor's presence, shape and dtype is
/// checked before the first byte is read: UserError that lists what is missing or differs. Each rank reads
/// what it needs itself, at most 64 MiB at a time. Elements of local parts that no run covers stay as they
/// are. Collective: where one rank fails, all throw.
void load_parts(const TensorSource& source, const HostGroup& group, Queue& queue,
                std::span<const TensorPart> parts);

/// Gathers the logical tensors from all ranks' parts and gives them to the ranks' sinks in pieces of
/// kBlockBytes, each piece to one rank's sink (see for_each_block). Collective.
void store_parts(const HostGroup& group, Queue& queue, std::span<const TensorPart> parts, TensorSink& sink);

}  // namespace verne
