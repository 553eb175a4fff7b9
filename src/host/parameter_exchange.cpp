#include "verne/host/parameter_exchange.hpp"

#include <algorithm>
#include <exception>

namespace verne {

using Copies = Placement::Copies;
using Lane = ParallelRuntime::Lane;

ParameterExchange::ParameterExchange(ParallelRuntime& runtime, const ParameterStore& store)
    : runtime_(runtime), store_(store) {
  written_.resize(store.parameters().size());
  uses_left_.resize(store.parameters().size());
  parameters_left_.resize(store.buckets().size());
  gathers_.resize(store.buckets().size());
  reductions_.resize(store.buckets().size());
}

ParameterExchange::~ParameterExchange() {
  // The last update's weights may be on their way yet; while an exception unwinds they are let go.
  if (std::uncaught_exceptions() == 0) wait_for_weights();
}

void ParameterExchange::begin_step(std::int64_t micro_batches) {
  std::fill(written_.begin(), written_.end(), 0);
  std::fill(parameters_left_.begin(), parameters_left_.end(), 0);
  for (const Parameter* p : store_.parameters()) {
    if (!p->trainable) continue;
    uses_left_[static_cast<std::size_t>(p->index)] = p->uses * micro_batches;
    ++parameters_left_[store_.bucket_of(*p)];
  }
}

Operand ParameterExchange::weight(const Parameter& parameter) {
  wait_for_bucket(store_.bucket_of(parameter));
  return store_.weight(parameter);
}

void ParameterExchange::wait_for_bucket(std::size_t bucket) {
  if (gathers_[bucket].live()) gathers_[bucket].wait(runtime_.compute());
}

void ParameterExchange::wait_for_weights() {
  for (std::size_t bucket = 0; bucket < gathers_.size(); ++bucket) wait_for_bucket(bucket);
}

Gradient ParameterExchange::grad(const Parameter& parameter) {
  require(parameter.trainable, "{} is frozen and has no gradient", parameter.name);
  char& written = written_[static_cast<std::size_t>(parameter.index)];
  const Accumulate accumulate = written ? Accumulate::yes : Accumulate::no;
  written = 1;
  return {.tensor = store_.gradient(parameter), .accumulate = accumulate};
}

void ParameterExchange::grad_done(const Parameter& parameter) {
  if (!parameter.trainable) return;
  std::int64_t& left = uses_left_[static_cast<std::size_t>(parameter.index)];
  require(left > 0, "{} was used more often in a step than was said", parameter.name);
  if (--left > 0) return;
  const std::size_t bucket = store_.bucket_of(parameter);
  if (--parameters_left_[bucket] == 0) reduce(bucket);
}

void ParameterExchange::reduce(std::size_t index) {
  Communicator& ranks = runtime_.data();
  const Bucket& bucket = store_.buckets()[index];
  Queue& queue = runtime_.queue(Lane::data);
  if (ranks.size() == 1 && !runtime_.kv_replicas()) return;
  if (&queue != &runtime_.compute()) queue.wait(runtime_.compute().record());
  if (ranks.size() > 1)
    reductions_[index] = ranks.reduce_scatter(queue, store_.gradients(bucket, store_.owned(bucket)),
                                              store_.gradients(bucket, ParameterStore::whole(bucket)));
  if (!runtime_.kv_replicas()) return;
  if (ranks.size() > 1) reductions_[index].wait(queue);
  sum_kv_replicas(queue, bucket);
  reductions_[index] = Pending(queue.record(), "all_reduce");
}

void ParameterExchange::sum_kv_replicas(Queue& queue, const Bucket& bucket) {
  const PoolRange owned = store_.owned(bucket);
  for (const int index : bucket.parameters) {
    const Parameter& p = store_.parameter(index);
    if (p.placement.copies != Copies::kv_heads) continue;
    const std::int64_t offset = store_.offset(p);
    const std::int64_t begin = std::max(owned.begin, offset + p.first_copied());
    const std::int64_t end = std::min(owned.end(), offset + p.shape.count());
    if (begin < end)
      runtime_.kv_replicas()
          ->all_reduce(queue, store_.gradients(bucket, {begin, end - begin}), Reduce::sum)
          .wait(queue);
  }
}

/// Copies of a whole bucket become one on the compute queue: small buckets, at the step's end.
void ParameterExchange::complete(std::size_t index) {
  const Bucket& bucket = store_.buckets()[index];
  Queue& queue = runtime_.compute();
  const Tensor owned = store_.gradients(bucket, store_.owned(bucket));
  switch (bucket.copies) {
    case Copies::none:
    case Copies::kv_heads:
      return;
    case Copies::partial:
      runtime_.tensor().all_reduce(queue, owned, Reduce::sum).wait(queue);
      return;
    case Copies::equal:  // equal but for the order in which different ranks' reductions added
      runtime_.tensor().broadcast(queue, owned, 0).wait(queue);
      return;
    case Copies::stages:
      runtime_.embedding()->all_reduce(queue, owned, Reduce::sum).wait(queue);
      return;
  }
}

void ParameterExchange::finish_gradients() {
  for (std::size_t i = 0; i < reductions_.size(); ++i) {
    require(parameters_left_[i] == 0, "bucket {} lacks the gradients of {} parameters", i,
            parameters_left_[i]);
    if (reductions_[i].live()) reductions_[i].wait(runtime_.compute());
  }
  for (std::size_t i = 0; i < reductions_.size(); ++i)
    if (store_.pool(store_.buckets()[i]).trainable) complete(i);
}

void ParameterExchange::gather_weights(Pools pools) {
  Communicator& ranks = runtime_.data();
  if (ranks.size() == 1) return;
  Queue& queue = runtime_.queue(Lane::data);
  if (&queue != &runtime_.compute()) queue.wait(runtime_.compute().record());
  for (std::size_t i = store_.buckets().size(); i-- > 0;) {
    const Bucket& bucket = store_.buckets()[i];
    if (pools == Pools::trained && !store_.pool(bucket).trainable) continue;
    gathers_[i] = ranks.all_gather(queue, store_.weights(bucket, ParameterStore::whole(bucket)),
                                   store_.weights(bucket, store_.owned(bucket)));
  }
}

}  // namespace verne
