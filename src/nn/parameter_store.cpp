#include "verne/nn/parameter_store.hpp"

#include <algorithm>
#include <array>

#include "verne/base/checked.hpp"

namespace verne {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements: 128 bytes of bf16

/// Copies that a bucket of their own completes at once; shared key and value heads are ranges inside others.
Placement::Copies bucket_copies(const Parameter& parameter) {
  const Placement::Copies copies = parameter.placement.copies;
  return copies == Placement::Copies::kv_heads ? Placement::Copies::none : copies;
}

}  // namespace

ParameterStore::ParameterStore(Queue& queue, std::span<const std::vector<Parameter*>> chunks, DType dtype,
                               const OwnerPlace& place, std::int64_t bucket_elements, Purpose purpose)
    : place_(place) {
  for (const auto& chunk : chunks) {
    for (Parameter* p : chunk) {
      p->index = static_cast<int>(parameters_.size());
      parameters_.push_back(p);
    }
  }
  places_.resize(parameters_.size());
  for (const auto& chunk : chunks) this->place(chunk, dtype, bucket_elements);
  for (Pool& pool : pools_) {
    pool.weights = Buffer(queue, pool.dtype, {pool.elements}, MemoryKind::weights);
    queue.zero(pool.weights.tensor());
    if (purpose == Purpose::inference || !pool.trainable) continue;
    pool.gradients = Buffer(queue, DType::f32, {pool.elements}, MemoryKind::gradients);
    queue.zero(pool.gradients.tensor());
  }
}

int ParameterStore::pool_for(DType dtype, const Parameter& parameter) {
  for (std::size_t i = 0; i < pools_.size(); ++i)
    if (pools_[i].dtype == dtype && pools_[i].group == parameter.placement.group &&
        pools_[i].trainable == parameter.trainable)
      return static_cast<int>(i);
  pools_.push_back({.dtype = dtype,
                    .group = parameter.placement.group,
                    .trainable = parameter.trainable,
                    .weights = {},
                    .gradients = {}});
  return static_cast<int>(pools_.size()) - 1;
}

void ParameterStore::place(std::span<Parameter* const> chunk, DType dtype, std::int64_t bucket_elements) {
  using Copies = Placement::Copies;
  const std::size_t first_bucket = buckets_.size();
  constexpr std::size_t kNone = ~std::size_t{0};
  for (const Copies copies : {Copies::none, Copies::partial, Copies::equal, Copies::stages}) {
    std::vector<std::size_t> open;  // by pool: its bucket that takes more
    for (std::size_t i = chunk.size(); i-- > 0;) {
      const Parameter& p = *chunk[i];
      if (bucket_copies(p) != copies) continue;
      const int pool = pool_for(dtype, p);
      open.resize(pools_.size(), kNone);
      std::size_t& bucket = open[static_cast<std::size_t>(pool)];
      if (bucket == kNone || buckets_[bucket].size >= bucket_elements) {
        bucket = buckets_.size();
        buckets_.push_back({.pool = pool, .parameters = {}, .copies = copies});
      }
      // Offsets count within the bucket until all of the chunk's sizes are known.
      places_[static_cast<std::size_t>(p.index)] = {.bucket = bucket, .offset = buckets_[bucket].size};
      buckets_[bucket].parameters.push_back(p.index);
      buckets_[bucket].size += round_up(p.shape.count(), kAlignment);
    }
  }
  for (std::size_t b = first_bucket; b < buckets_.size(); ++b) {
    Bucket& bucket = buckets_[b];
    Pool& pool = pools_[static_cast<std::size_t>(bucket.pool)];
    bucket.begin = pool.elements;
    bucket.size = round_up(bucket.size, kAlignment * place_.ranks);
    pool.elements += bucket.size;
    for (const int index : bucket.parameters) places_[static_cast<std::size_t>(index)].offset += bucket.begin;
  }
}

PoolRange ParameterStore::owned(const Bucket& bucket) const {
  const std::int64_t block = bucket.size / place_.ranks;
  return {bucket.begin + place_.rank * block, block};
}

Tensor ParameterStore::weight(const Parameter& parameter) const {
  const Pool& p = pool(buckets_[bucket_of(parameter)]);
  return p.weights.tensor().rows(offset(parameter), parameter.shape.count()).view(parameter.shape);
}
Tensor ParameterStore::gradient(const Parameter& parameter) const {
  const Pool& p = pool(buckets_[bucket_of(parameter)]);
  require(p.gradients.bytes() > 0, "{} has no gradient", parameter.name);
  return p.gradients.tensor().rows(offset(parameter), parameter.shape.count()).view(parameter.shape);
}
Tensor ParameterStore::weights(const Bucket& bucket, PoolRange range) const {
  return pool(bucket).weights.tensor().rows(range.begin, range.count);
}
Tensor ParameterStore::gradients(const Bucket& bucket, PoolRange range) const {
  return pool(bucket).gradients.tensor().rows(range.begin, range.count);
}

void ParameterStore::add_parts(std::vector<TensorPart>& parts, const Parameter& parameter, const View& view,
                               DType stored, Share share) const {
  const Bucket& bucket = buckets_[bucket_of(parameter)];
  const std::int64_t at = offset(parameter);
  PoolRange range = share == Share::held ? whole(bucket) : owned(bucket);
  if (share == Share::counted && !place_.first_copy.of(parameter.placement.copies))
    range.count =
        std::max<std::int64_t>(0, std::min(range.end(), at + parameter.first_copied()) - range.begin);
  for (const ParameterSlice& slice : parameter.slices)
    parts.push_back({.name = slice.name,
                     .dtype = stored,
                     .shape = slice.shape,
                     .local = view.local,
                     .runs = clip_runs(slice.runs, range.begin - at, range.end() - at, at + view.shift)});
}

std::vector<TensorPart> ParameterStore::weight_parts(DType stored, Share share, Which which) const {
  std::vector<TensorPart> parts;
  for (const Parameter* p : parameters_) {
    if (which != Which::all && p->trainable != (which == Which::trained)) continue;
    add_parts(parts, *p, {.local = pool(buckets_[bucket_of(*p)]).weights.tensor()}, stored, share);
  }
  return parts;
}

std::vector<TensorPart> ParameterStore::gradient_parts(Share share) const {
  std::vector<TensorPart> parts;
  for (const Parameter* p : parameters_)
    if (p->trainable)
      add_parts(parts, *p, {.local = pool(buckets_[bucket_of(*p)]).gradients.tensor()}, DType::f32, share);
  return parts;
}

}  // namespace verne
