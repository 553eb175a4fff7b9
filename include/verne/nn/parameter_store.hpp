#pragma once
#include <span>
#include <vector>

#include "verne/nn/parameter.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// What a model needs memory for.
enum class Purpose { training, inference };

/// Which block of every bucket a rank owns, and which copies count on it.
struct OwnerPlace {
  int rank = 0, ranks = 1;  ///< of the reduce group
  FirstCopy first_copy;
};

/// Parameters that travel together: of one pool, one chunk and one kind of copies. Cut into equal blocks
/// among the ranks of the reduce group: rank r owns block r.
struct Bucket {
  int pool = 0;
  std::int64_t begin = 0, size = 0;  ///< elements of the pool's buffers; size is a multiple of 64 · ranks
  std::vector<int> parameters;       ///< indices, in buffer order
  Placement::Copies copies = Placement::Copies::none;  ///< kv_heads lie among none
};

/// Elements [begin, begin + count) of a pool's buffers.
struct PoolRange {
  std::int64_t begin = 0, count = 0;
  std::int64_t end() const { return begin + count; }
};

/// The memory of a model's parameters: pools keyed by (dtype, reduce group, trainable), each one flat buffer
/// of weights and, where it trains, one of float32 gradients with equal offsets. A frozen pool has no
/// gradient. Parameters lie in reverse order, chunk by chunk, so that backward fills buckets from the front;
/// each starts at a multiple of 64 elements. Gaps and padding are zero.
class ParameterStore {
 public:
  /// Gives every parameter its `index`. Buckets close at `bucket_elements` and at the end of a chunk.
  ParameterStore(Queue& queue, std::span<const std::vector<Parameter*>> chunks, DType dtype,
                 const OwnerPlace& place, std::int64_t bucket_elements, Purpose purpose);

  struct Pool {
    DType dtype = DType::f32;
    ReduceGroup group = ReduceGroup::data_context;
    bool trainable = true;
    std::int64_t elements = 0;
    Buffer weights, gradients;  ///< [elements]; no gradients where frozen or for inference
  };

  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const Parameter& parameter(int index) const { return *parameters_[static_cast<std::size_t>(index)]; }
  const std::vector<Pool>& pools() const { return pools_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  const OwnerPlace& place() const { return place_; }
  std::size_t bucket_of(const Parameter& parameter) const { return place_of(parameter).bucket; }
  /// Where the parameter lies in its pool.
  std::int64_t offset(const Parameter& parameter) const { return place_of(parameter).offset; }
  /// The block of a bucket that this rank owns.
  PoolRange owned(const Bucket& bucket) const;

  Tensor weight(const Parameter& parameter) const;
  Tensor gradient(const Parameter& parameter) const;
  const Pool& pool(const Bucket& bucket) const { return pools_[static_cast<std::size_t>(bucket.pool)]; }
  Tensor weights(const Bucket& bucket, PoolRange range) const;
  Tensor gradients(const Bucket& bucket, PoolRange range) const;
  static PoolRange whole(const Bucket& bucket) { return {bucket.begin, bucket.size}; }

  /// How much of a parameter parts speak of.
  enum class Share {
    held,     ///< all that lies here
    owned,    ///< this rank's block: over the reduce group each element once
    counted,  ///< of the block what counts here: over all ranks of a layout each element once
  };
  /// One tensor of elements laid out as a pool's (its weights, gradients, or owned elements alone) as named
  /// parts of logical tensors.
  struct View {
    Tensor local;
    std::int64_t shift = 0;  ///< element e of the pool is element e + shift of `local`
  };
  /// Adds the parts of one parameter.
  void add_parts(std::vector<TensorPart>& parts, const Parameter& parameter, const View& view, DType stored,
                 Share share) const;
  enum class Which { all, trained, frozen };
  std::vector<TensorPart> weight_parts(DType stored, Share share, Which which = Which::all) const;
  std::vector<TensorPart> gradient_parts(Share share) const;

 private:
  struct Place {
    std::size_t bucket = 0;
    std::int64_t offset = 0;
  };
  const Place& place_of(const Parameter& parameter) const {
    return places_[static_cast<std::size_t>(parameter.index)];
  }
  int pool_for(DType dtype, const Parameter& parameter);
  void place(std::span<Parameter* const> chunk, DType dtype, std::int64_t bucket_elements);

  OwnerPlace place_;
  std::vector<Parameter*> parameters_;
  std::vector<Place> places_;
  std::vector<Pool> pools_;
  std::vector<Bucket> buckets_;
};

}  // namespace verne
