#pragma once
#include <vector>

#include "verne/nn/parameter.hpp"
#include "verne/tensor/queue.hpp"

namespace verne {

/// Parameters of one reduce group that travel together. Cut into equal blocks among data ranks: rank d owns
/// block d.
struct Bucket {
  std::int64_t begin = 0, size = 0;  ///< elements of the flat buffers; size is a multiple of 64 · data ranks
  std::vector<int> parameters;       ///< indices, in buffer order
  bool partial = false;              ///< its gradients are first summed over tensor ranks
};

/// What a model needs memory for.
enum class Purpose { training, inference };

/// The flat memory of a model's parameters: one buffer of weights, one of float32 gradients, with equal
/// offsets. Parameters lie in reverse order, so that backward fills buckets from the front; each starts at a
/// multiple of 64 elements. Gaps and padding are zero.
class ParameterStore {
 public:
  /// Gives every parameter its `index`. Buckets close at `bucket_elements`; gradients summed over tensor
  /// ranks have buckets of their own, last.
  ParameterStore(Queue& queue, const std::vector<Parameter*>& parameters, DType dtype, int data_ranks,
                 std::int64_t bucket_elements, Purpose purpose);

  const std::vector<Parameter*>& parameters() const { return parameters_; }
  const std::vector<Bucket>& buckets() const { return buckets_; }
  int bucket_of(const Parameter& parameter) const {
    return places_[static_cast<std::size_t>(parameter.index)].bucket;
  }
  std::int64_t offset(const Parameter& parameter) const {
    return places_[static_cast<std::size_t>(parameter.index)].offset;
  }
  DType dtype() const { return dtype_; }
  std::int64_t elements() const { return elements_; }  ///< of a flat buffer

  Tensor weight(const Parameter& parameter) const;
  Tensor gradient(const Parameter& parameter) const;
  Tensor weights(const Bucket& bucket) const;
  Tensor gradients(const Bucket& bucket) const;
  const Tensor& flat_weights() const { return weights_.tensor(); }
  const Tensor& flat_gradients() const { return gradients_.tensor(); }

  /// The weights as named parts of logical tensors, all slices of all parameters; `stored` is the files'
  /// dtype.
  std::vector<TensorPart> weight_parts(DType stored) const;

 private:
  struct Place {
    int bucket = 0;
    std::int64_t offset = 0;
  };
  std::vector<Parameter*> parameters_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  DType dtype_;
  std::int64_t elements_ = 0;
  Buffer weights_, gradients_;
};

}  // namespace verne
