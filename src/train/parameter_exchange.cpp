#include "verne/train/parameter_exchange.hpp"

#include <algorithm>
#include <exception>

namespace verne {

ParameterExchange::ParameterExchange(ParallelRuntime& runtime, const ParameterStore& store)
    : runtime_(runtime), store_(store) {
  written_.resize(store.parameters().size());
  uses_left_.resize(store.parameters().size());
  const std::size_t buckets = store.buckets().size();
  parameters_left_.resize(buckets);
  gathers_.resize(buckets);
  reductions_.resize(buckets);
  gathering_.resize(buckets);
  reducing_.resize(buckets);
}

ParameterExchange::~ParameterExchange() {
  if (std::uncaught_exceptions() == 0) wait_for_weights();
}

void ParameterExchange::begin_step() {
  std::fill(written_.begin(), written_.end(), 0);
}

void ParameterExchange::begin_micro_batch(MicroBatchPlace place) {
  place_ = place;
  std::fill(parameters_left_.begin(), parameters_left_.end(), 0);
  for (const Parameter* p : store_.parameters()) {
    uses_left_[static_cast<std::size_t>(p->index)] = p->uses;
    if (p->trainable) ++parameters_left_[static_cast<std::size_t>(store_.bucket_of(*p))];
  }
}

Operand ParameterExchange::weight(const Parameter& parameter) {
  wait_for_bucket(static_cast<std::size_t>(store_.bucket_of(parameter)));
  return store_.weight(parameter);
}

void ParameterExchange::wait_for_bucket(std::size_t bucket) {
  if (gathering_[bucket]) gathers_[bucket].wait(runtime_.compute());
  gathering_[bucket] = 0;
}

void ParameterExchange::wait_for_weights() {
  for (std::size_t bucket = 0; bucket < gathering_.size(); ++bucket) wait_for_bucket(bucket);
}

Gradient ParameterExchange::grad(const Parameter& parameter) {
  char& written = written_[static_cast<std::size_t>(parameter.index)];
  const Accumulate accumulate = written ? Accumulate::yes : Accumulate::no;
  written = 1;
  return {.tensor = store_.gradient(parameter), .accumulate = accumulate};
}

void ParameterExchange::grad_done(const Parameter& parameter) {
  if (!parameter.trainable) return;
  if (--uses_left_[static_cast<std::size_t>(parameter.index)] > 0 || place_ == MicroBatchPlace::not_last)
    return;
  if (parameter.tensor_gradient == TensorGradient::kv_replicas) sum_kv_replicas(parameter);
  const auto index = static_cast<std::size_t>(store_.bucket_of(parameter));
  const Bucket& bucket = store_.buckets()[index];
  if (--parameters_left_[index] == 0 && !bucket.partial) reduce(bucket, index);
}

void ParameterExchange::sum_kv_replicas(const Parameter& parameter) {
  const Tensor gradient = store_.gradient(parameter);
  const Tensor rows = gradient.rows(parameter.replicated_row, gradient.size(0) - parameter.replicated_row);
  runtime_.kv_replicas()->all_reduce(runtime_.compute(), rows, Reduce::sum).wait(runtime_.compute());
}

void ParameterExchange::reduce(const Bucket& bucket, std::size_t index) {
  Communicator& data = runtime_.data();
  if (data.size() == 1) return;
  Queue& queue = runtime_.data_queue();
  if (&queue != &runtime_.compute()) queue.wait(runtime_.compute().record());
  const Tensor gradients = store_.gradients(bucket);
  const std::int64_t block = bucket.size / data.size();
  reductions_[index] = data.reduce_scatter(queue, gradients.rows(data.rank() * block, block), gradients);
  reducing_[index] = 1;
}

void ParameterExchange::finish_gradients() {
  for (std::size_t i = 0; i < store_.buckets().size(); ++i) {
    const Bucket& bucket = store_.buckets()[i];
    require(parameters_left_[i] == 0, "bucket {} lacks the gradients of {} parameters", i,
            parameters_left_[i]);
    if (!bucket.partial) continue;
    if (runtime_.tensor().size() > 1)
      runtime_.tensor()
          .all_reduce(runtime_.compute(), store_.gradients(bucket), Reduce::sum)
          .wait(runtime_.compute());
    reduce(bucket, i);
  }
  for (std::size_t i = 0; i < reductions_.size(); ++i) {
    if (reducing_[i]) reductions_[i].wait(runtime_.compute());
    reducing_[i] = 0;
  }
}

void ParameterExchange::gather_weights() {
  Communicator& data = runtime_.data();
  if (data.size() == 1) return;
  Queue& queue = runtime_.data_queue();
  if (&queue != &runtime_.compute()) queue.wait(runtime_.compute().record());
  for (std::size_t i = store_.buckets().size(); i-- > 0;) {
    const Bucket& bucket = store_.buckets()[i];
    const Tensor weights = store_.weights(bucket);
    const std::int64_t block = bucket.size / data.size();
    gathers_[i] = data.all_gather(queue, weights, weights.rows(data.rank() * block, block));
    gathering_[i] = 1;
  }
}

}  // namespace verne
